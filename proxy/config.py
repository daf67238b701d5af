"""The configuration file as pydantic models: every field with its unit and the default's reason.

Loading (with line numbers in errors) is `proxy.configfile`; this module is plain data.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from proxy.capture.settings import Capture
from proxy.drift.settings import Drift
from proxy.identity.settings import ServerTls, TrustedProxy, UpstreamTls
from proxy.inflow.settings import Inflow
from proxy.limits.settings import LimitedGroup, Limits
from proxy.tracing.settings import Tracing

INT32_MAX = 2**31 - 1
MAX_PORT = 65535

RpcGroup = LimitedGroup
SharedMemoryPolicy = Literal["deny", "inspect", "passthrough"]
NonFinitePolicy = Literal["refuse", "pass"]
InputKind = Literal["image", "vector", "waveform"]
Layout = Literal["NCHW", "NHWC", "CHW", "HWC", "NCT", "NT", "CT", "T", "ND", "D"]

_LAYOUTS: dict[InputKind, tuple[Layout, ...]] = {
    "image": ("NCHW", "NHWC", "CHW", "HWC"),
    "waveform": ("NCT", "NT", "CT", "T"),
    "vector": ("ND", "D"),
}
_EVERY_KIND = {"name", "inspect", "kind", "layout"}
_FIELDS: dict[InputKind, set[str]] = {
    "waveform": _EVERY_KIND | {"range", "range_tolerance"},
    "vector": _EVERY_KIND,
}
"""What can be said of inputs that are no images."""


def _has_a_port(address: str) -> str:
    if int(address.rpartition(":")[2]) > MAX_PORT:
        raise ValueError(f"the port is over {MAX_PORT}")
    return address


def is_loopback(address: str) -> bool:
    """Whether only this machine reaches HOST:PORT; names other than localhost are not asked."""
    host = address.rpartition(":")[0].strip("[]")
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


Address = Annotated[str, Field(pattern=r"^.+:\d{1,5}$"), AfterValidator(_has_a_port)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Rpc(_Strict):
    """Which RPC groups of Triton clients may call."""

    allow: tuple[RpcGroup, ...] = ()
    """Groups allowed besides health, metadata and inference, which are always on. None by default:
    each of them reads or changes the server (FIELD: statistics and model-config are the mild ones).
    """


class Input(_Strict):
    """One input tensor of a model: what it holds, and what its values mean."""

    name: str | None = None
    """Tensor name. Default: the model's only input."""
    inspect: bool = True
    """False for inputs that are not to be scored (they pass, by name)."""
    kind: InputKind = "image"
    """image: pixels. waveform: audio or another signal over time. vector: a row of numbers, such
    as a table's or an embedding; compared with benign rows as it is. Each kind has detectors and
    purifiers of its own: `breakwater check --list` tells which."""
    layout: Layout | None = None
    """Axes on the wire; without N there is no batch axis. Images: NCHW, NHWC, CHW, HWC.
    Waveforms, T samples on C channels: NCT, NT, CT, T. Vectors: ND, D, where D is all other axes
    together. Default: from the model's configuration."""
    range: tuple[float, float] | None = None
    """Images: the wire values that mean black and white; default [0, 255] for UINT8, [-128, 127]
    for INT8, otherwise [0, 1]. Not together with mean/std. Waveforms: the values of full scale;
    default [-32768, 32768] for INT16, otherwise [-1, 1]."""
    mean: tuple[float, ...] | None = None
    """Per-channel mean subtracted by the client: wire = (pixel - mean) / std, pixel in [0, 1]."""
    std: tuple[float, ...] | None = None
    """Per-channel standard deviation, with `mean`."""
    range_tolerance: float = Field(default=0.02, ge=0)
    """How far outside [0, 1] a pixel may lie before the tensor is refused, in pixel units. 0.02
    admits the ringing of bicubic resizing; values inside the tolerance are clamped for scoring.
    For waveforms: how far outside [-1, 1]."""
    encoded: bool = False
    """True when a BYTES tensor holds JPEG or PNG files."""
    size: tuple[int, int] | None = None
    """Height and width encoded images are resized to for scoring (what the model will see)."""
    max_pixels: int = Field(default=16_000_000, gt=0)
    """Largest encoded image accepted, height x width; a guard against decompression bombs. The
    images of one request together may have four times as many."""

    @model_validator(mode="after")
    def _of_its_kind(self) -> Self:
        foreign = self.model_fields_set - _FIELDS.get(self.kind, self.model_fields_set)
        if foreign:
            takes = ", ".join(sorted(_FIELDS[self.kind]))
            raise ValueError(
                f"kind: {self.kind} takes no {', '.join(sorted(foreign))}; it takes {takes}"
            )
        layouts = _LAYOUTS[self.kind]
        if self.layout is not None and self.layout not in layouts:
            raise ValueError(f"the layout of kind: {self.kind} is one of {', '.join(layouts)}")
        return self

    @model_validator(mode="after")
    def _one_scale(self) -> Self:
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std go together")
        if self.range is not None and self.mean is not None:
            raise ValueError("give either range or mean/std, not both")
        if self.range is not None and self.range[0] >= self.range[1]:
            raise ValueError("range must be [black, white] with black < white (or [low, high])")
        if self.std is not None and any(s <= 0 for s in self.std):
            raise ValueError("std must be positive")
        if len(self.mean or ()) != len(self.std or ()) or len(self.mean or (0,)) not in (1, 3):
            raise ValueError("mean and std need one value each, or one for each of 3 channels")
        if self.encoded and (self.range is not None or self.mean is not None):
            raise ValueError("encoded inputs hold 8-bit files: range, mean and std do not apply")
        if self.encoded and self.size is None:
            raise ValueError("encoded inputs need size: [height, width], the size scored at")
        return self


class Output(_Strict):
    """The output tensor that holds the class scores."""

    name: str | None = None
    """Tensor name. Default: the model's only output."""
    kind: Literal["logits", "probabilities", "none"] = "logits"
    """`none`: the model has no class scores; only input-only detectors can be used."""


class Part(_Strict):
    """A detector or purifier by name, with its parameters."""

    name: str
    """One of the names `breakwater check --list` prints."""
    params: dict[str, Any] = Field(default_factory=dict)
    """Keyword parameters of the part."""


class Cascade(_Strict):
    """When cheap evidence is enough: only samples in doubt pay for what is dearer.

    Detectors are run by cost: on the input, on the model's answer, with networks of their own, on
    answers to copies and of other models. Both fields are shares of benign samples, of the worst
    group. The false-positive rate is calibrated for the cascade as a whole. Cheaper, and blind to
    what the cheap detectors do not show: attacks that look ordinary to them pass with the samples
    they resemble. Copies are asked about after the model's answer instead of beside it.
    """

    clean: float = Field(default=0.5, gt=0, le=1)
    """Stop, unsuspicious, where at least this share of benign samples looks more suspicious."""
    suspicious: float = Field(default=0.001, gt=0, lt=1)
    """Stop, suspicious, where at most this share does."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.suspicious >= self.clean:
            raise ValueError("suspicious must be less than clean")
        return self


class Secrecy(_Strict):
    """Detectors drawn by a secret, so that no two deployments and epochs have the same fusion."""

    key_file: Path
    """File with the secret, at least 16 bytes, equal on all replicas; relative to the configuration
    file."""
    rotate_hours: float = Field(default=24.0, gt=0)
    """How long a draw lasts."""
    keep: float = Field(default=0.7, gt=0, le=1)
    """Share of the detectors kept in a draw."""


class Aggregate(_Strict):
    """The answer to a suspicious sample from several purified copies of it, each drawn anew.

    At least one purifier must be random. Costs the model one more call, of `copies` - 1 copies of
    each suspicious sample. Only plain class scores are aggregated: where the client asks for other
    outputs, for classification strings or for shared memory, in streams, and where the copies are
    not answered within `budget_ms`, the answer to the first copy is served.
    """

    copies: int = Field(default=8, ge=2, le=64)
    """How many copies, the one sent in the client's place among them."""
    rule: Literal["mean", "vote"] = "mean"
    """mean: of the copies' probabilities. vote: shares of the copies that choose each class."""


class QueryAttacks(_Strict):
    """What follows from a series of queries that looks like a search for an adversarial input.

    Needs the detector `history`. Its alarm is apart from the verdict on a single request: a series
    is judged by its own false-positive rate and answered by its own action.
    """

    fpr: float = Field(default=0.001, gt=0, lt=1)
    """Wanted share of benign near-duplicates (video frames, bursts, edits) that raise an alarm."""
    action: Literal["flag", "purify", "decoy", "block"] = "flag"
    """What enforce does with a query of such a series, and with every request of a principal in
    quarantine. flag: pass and record. purify: purify the suspicious samples. decoy: answer from
    purified copies of all samples, so that the search follows the purified model. block: refuse, as
    a busy server would."""
    quarantine_minutes: float = Field(default=10.0, ge=0)
    """How long a principal stays in quarantine after one alarm; each doubling of the alarms adds as
    much, up to six times. 0: only the series itself is acted on. Take 0 where many share a
    principal, e.g. behind a gateway without `principal_header`."""


class SharedHistory(_Strict):
    """A Redis or Valkey server that replicas share their history in. Never holds inputs."""

    url: str = Field(pattern=r"^(redis|rediss|unix)://")
    """redis://host:6379/0; rediss:// for TLS."""
    username: str | None = None
    """ACL user. Default: the server's default user."""
    password_file: Path | None = None
    """File with the password, relative to the configuration file."""
    ca_file: Path | None = None
    """Certificates that the server's is checked against. Default: the system's."""
    cert_file: Path | None = None
    """This client's certificate, where the server wants one."""
    cert_key_file: Path | None = None
    """The certificate's private key."""
    timeout_ms: float = Field(default=2.0, gt=0)
    """Longest a request waits for the shared history; past it the local one stands, counted."""
    capacity: int = Field(default=1_000_000, gt=0)
    """Most queries kept there, about a kilobyte each; past it the oldest go."""
    per_minute: int = Field(default=6_000, gt=0)
    """Queries of one principal that one replica adds in a minute; past it one in 16 is."""

    @field_validator("url")
    @classmethod
    def _without_password(cls, url: str) -> str:
        # What the configuration says is shown: GET /config, the policy, `breakwater check`.
        parts = urlsplit(url)
        named = parse_qs(parts.query, keep_blank_values=True)
        if parts.password is not None or "password" in named:
            raise ValueError("must not hold a password: use username and password_file")
        return url


class History(_Strict):
    """The memory of queries, for models with the detector `history`."""

    capacity: int = Field(default=200_000, gt=0, le=2**24)
    """Most queries remembered by all workers of a supervisor together, about half a kilobyte each.
    When full, the principals that fill most of it lose their oldest first."""
    ttl_minutes: float = Field(default=60.0, gt=0)
    """How long a query is remembered. An attack that asks less than one query in this time is not
    seen as a series."""
    key_file: Path | None = None
    """File with the secret that salts the fingerprints, at least 16 bytes, equal on all replicas;
    relative to the configuration file. Default: random, so that replicas do not understand each
    other's history; workers of one supervisor do."""
    rotate_hours: float = Field(default=24.0, gt=0)
    """How long a salt is used. Queries are found by the last salt too for `ttl_minutes` after."""
    shared: SharedHistory | None = None
    """Where replicas share their history. Off: each has its own, in memory that all its workers
    have in common."""

    @model_validator(mode="after")
    def _one_secret(self) -> Self:
        if self.shared is not None and self.key_file is None:
            raise ValueError("shared needs key_file: replicas must salt alike")
        if self.rotate_hours * 60 < self.ttl_minutes:
            raise ValueError("rotate_hours must not be shorter than ttl_minutes")
        return self


class Batching(_Strict):
    """How concurrent requests share one pass over the device."""

    max_batch: int = Field(default=32, gt=0)
    """Most samples scored in one pass."""
    window_us: int = Field(default=200, ge=0, le=1000)
    """How long the device waits for company, microseconds; only while other requests are in
    flight, so a lone request never waits."""
    queue: int = Field(default=256, gt=0)
    """Most entries waiting for the device; one more is an overload."""


class Shadow(_Strict):
    """A second policy that looks at a model's traffic without acting; disagreements are counted."""

    policy: Path
    """Configuration file whose entry of the same model is the second policy, relative to this
    file. It is read with this file: change or touch this one to have it read again."""
    share: float = Field(default=1.0, gt=0, le=1)
    """Share of the requests it looks at. Each costs the device what the second policy costs."""


class Model(_Strict):
    """The defence of one model."""

    inputs: tuple[Input, ...] = ()
    """Every input of the model. Exactly one is inspected; others need `inspect: false`. Default:
    the model's only input."""
    output: Output = Output()
    calibration: Path | None = None
    """Folder written by `breakwater calibrate`, relative to the configuration file."""
    calibration_max_age_days: float = Field(default=90.0, gt=0)
    """Older calibrations are reported as stale (log, breakwater_calibration_stale) and used all the
    same: traffic changes over months, and a threshold should be looked at before it matters."""
    mode: Literal["observe", "enforce"] = "observe"
    """observe: score beside the request and change nothing. enforce: act. Default observe, so
    that a first deployment cannot break traffic."""
    action: Literal["flag", "purify", "block"] = "flag"
    """What enforce does with a suspicious request. flag: pass it and record it."""
    dispatch: Literal["sequential", "speculative"] = "speculative"
    """When enforce sends a request on. speculative: at once, and the answer is held until the
    verdict, so that scoring costs next to no time; the call for a request that is blocked or
    purified was in vain. sequential: not before its verdict, or before a detector wants the
    model's answer; for models that must not see what is blocked. Sequences are always sequential.
    """
    max_waste: float = Field(default=0.1, gt=0, le=1)
    """With speculative: share of calls made in vain above which requests are sent in sequence, for
    at least 10 s and until it has fallen to half of this. Only calls that sequential would spare
    count. 1: never."""
    fpr: float = Field(default=0.01, gt=0, lt=1)
    """Wanted false-positive rate, a share of benign samples, held on the worst calibrated group."""
    budget_ms: float = Field(default=50.0, gt=0)
    """Longest a request waits for its defence, milliseconds. A stage that would take longer by all
    experience is not begun; what is known by then can still show that a request is suspicious,
    and otherwise `on_failure` decides. The model's own time for the client's request is not
    counted. Where the client's deadline is shorter, the request ends with DEADLINE_EXCEEDED
    instead: no deadline buys a pass."""
    on_failure: Literal["open", "closed"] = "open"
    """What a missing verdict means: a detector failed, was too slow, or is left out for a while
    since it kept failing. open: pass (counted); closed: refuse."""
    annotate: bool = False
    """Tell the caller: trailing metadata breakwater-verdict and breakwater-request-id. Off by
    default, since a visible verdict is an oracle for an attacker's search."""
    answer_quantum_ms: float = Field(default=0, ge=0, le=10_000)
    """Answers leave at multiples of this after their request's arrival, so that the time of an
    answer does not tell its verdict; messages of streams are sent on so. Longer than purified
    requests take, or it hides less. It costs every request that latency. 0: at once. Enforce only.
    """
    non_finite: NonFinitePolicy = "refuse"
    """NaN and infinities in this model's tensors. Some tabular backends take NaN as a missing
    value: set `pass` for those. A sample with such a value has no score, so that `on_failure`
    decides; the others of its request are scored as usual."""
    cascade: Cascade | None = None
    """Stop where cheap evidence is enough. Off: all detectors look at every sample."""
    secrecy: Secrecy | None = None
    """Off by default: what is hidden from attackers is hidden from whoever reads the scores too."""
    query_attacks: QueryAttacks = QueryAttacks()
    """What follows from a series of queries, with the detector `history`."""
    detectors: tuple[Part, ...] = ()
    """Evidence to gather. Empty: validation and metrics only."""
    purifiers: tuple[Part, ...] = ()
    """Applied in this order to suspicious samples when action is purify."""
    aggregate: Aggregate | None = None
    """With action purify: answer from several purified copies. Off: from one."""
    shadow: Shadow | None = None
    """A second policy to compare with this one on live traffic. Off: none."""
    drift: Drift = Drift()
    """Whether its traffic still looks like what it was calibrated on."""
    evaluation: Path | None = None
    """Folder that `breakwater evaluate` wrote, relative to the configuration file: the console
    shows what another threshold would have caught of its attacks."""

    @property
    def kind(self) -> InputKind:
        """What the inspected input holds."""
        return next((i.kind for i in self.inputs if i.inspect), "image")

    @property
    def _purifies(self) -> bool:
        return self.action == "purify" or self.query_attacks.action in ("purify", "decoy")

    @property
    def remembers(self) -> bool:
        """Whether its queries are remembered."""
        return any(part.name == "history" for part in self.detectors)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len([i for i in self.inputs if i.inspect]) > 1:
            raise ValueError("only one input can be inspected; set inspect: false on the others")
        if self.action == "purify" and not self.purifiers:
            raise ValueError("action: purify needs at least one entry under purifiers")
        if self.query_attacks.action in ("purify", "decoy") and not self.purifiers:
            raise ValueError(
                f"query_attacks.action: {self.query_attacks.action} needs at least one entry under "
                "purifiers"
            )
        if self.query_attacks != QueryAttacks() and not self.remembers:
            raise ValueError("query_attacks needs the detector `history`; add it to detectors")
        if self.aggregate is not None and not self._purifies:
            raise ValueError("aggregate goes with action: purify, or query_attacks.action: decoy")
        if self.aggregate is not None and self.output.kind == "none":
            raise ValueError("aggregate needs the model's class scores, but output.kind is none")
        if self.detectors and self.calibration is None:
            raise ValueError(
                "detectors need a calibration: set calibration: DIR and run `breakwater calibrate`"
            )
        if self.shadow is not None and not self.detectors:
            raise ValueError("shadow needs detectors: there is nothing to compare it with")
        names = [d.name for d in self.detectors]
        if len(set(names)) != len(names):
            raise ValueError("a detector is listed twice")
        return self


class Control(_Strict):
    """The control API over gRPC, and the token that it, the admin port and the console ask for."""

    listen: Address = "127.0.0.1:9091"
    """Where it is served. Beyond loopback it needs token_file or client_ca_file."""
    token_file: Path | None = None
    """File with the token that callers show as `authorization: Bearer TOKEN`, at least 16
    characters, relative to the configuration file; a changed file is in force at once. The admin
    port asks for it too, but for /metrics, /live and /ready. Default: nothing can be changed, and
    on loopback everything can be read."""
    cert_file: Path | None = None
    """Certificate chain of the control port, PEM. Default: no TLS."""
    key_file: Path | None = None
    """The certificate's private key, PEM."""
    client_ca_file: Path | None = None
    """Certificates that clients' ones are checked against; clients without one get no connection.
    With token_file too, both are needed."""

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together")
        if self.client_ca_file is not None and self.cert_file is None:
            raise ValueError("client_ca_file needs cert_file and key_file: it is TLS")
        unguarded = self.token_file is None and self.client_ca_file is None
        if unguarded and not is_loopback(self.listen):
            raise ValueError(
                f"listen: {self.listen} is not on loopback: set token_file or client_ca_file, or "
                "everybody who reaches it could read what clients ask"
            )
        return self


class Audit(_Strict):
    """The audit log: one JSON line per suspicious or failed request, never pixels."""

    path: Path | None = None
    """File appended to, relative to the configuration file. Default: standard output."""
    key_file: Path | None = None
    """File with a secret, at least 16 bytes, that seals the lines, so that only who has it can
    write a log that `breakwater audit verify` finds intact. Without: plain digests, which show
    accidents, and tampering only with an anchor kept elsewhere."""


class Records(_Strict):
    """What is kept, in memory, of what was scored: never inputs, but for `thumbnails`."""

    capacity: int = Field(default=20_000, ge=0, le=1_000_000)
    """Most samples of one model whose scores each worker keeps, about 0.25 KB each; a uniform
    sample of the distinct ones seen, for `calibrate --live` and the console. 0: none."""
    recent: int = Field(default=512, gt=0, le=100_000)
    """Suspicious and failed samples each worker can show, 1 to 2 KB each; up to 20 with a picture.
    As many more that a shadow policy judges otherwise. Labelled ones take up half of that at most
    and stay longest; a client that sends many cannot push out those of the others."""
    max_age_hours: float = Field(default=168.0, gt=0)
    """How long scores are kept after a sample was last seen."""
    thumbnails: bool = False
    """Keep a picture of at most 64 x 64 pixels of suspicious samples, up to 20 a second. Off by
    default: whoever reads the records then sees what clients sent."""


class Config(_Strict):
    """The whole configuration; without a file, every default: a hardened pass-through."""

    listen: Address = "0.0.0.0:8101"
    """Where clients connect."""
    tls: ServerTls | None = None
    """TLS where clients connect. Off by default; clients without it are refused where it is on."""
    upstream: Address = "127.0.0.1:8001"
    """Triton's gRPC address."""
    upstream_tls: UpstreamTls | None = None
    """TLS to the model server. Off by default."""
    admin: Address = "127.0.0.1:9090"
    """Metrics, health and drain over HTTP. Loopback by default: it can stop the proxy."""
    admin_tls: ServerTls | None = None
    """TLS on the admin port. Off by default. Beyond loopback that port wants `control.token_file`
    or this section's `client_ca_file`."""
    metrics: Address | None = None
    """A second listener with /metrics, /live and /ready only, which can change nothing and asks for
    no token, so that Prometheus can reach it, e.g. 0.0.0.0:9092. Off by default."""
    control: Control | None = None
    """The control API (gRPC) and its token. Off by default."""
    rpc: Rpc = Rpc()
    shared_memory: SharedMemoryPolicy = "deny"
    """Inputs that point to shared memory. deny; inspect: read system shared memory (same pod) and
    forward the copy that was inspected; passthrough: unseen, counted."""
    non_finite: NonFinitePolicy = "pass"
    """NaN and infinities in the tensors of models that are not listed. Pass: there is no detector
    to mislead, some backends take NaN as a missing value, and looking at every value costs."""
    unlisted_models: Literal["pass", "refuse"] = "pass"
    """Models without an entry under `models`: validated and forwarded unscored, or refused."""
    models: dict[str, Model] = Field(default_factory=dict)
    """By model name."""
    history: History = History()
    """The memory of queries, shared by all models."""
    batching: Batching = Batching()
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where detectors run; auto takes CUDA when it is there."""
    torch_threads: Literal["auto"] | Annotated[int, Field(gt=0, le=256)] = "auto"
    """Threads of one worker that compute at the same time, on the CPU. auto: as OMP_NUM_THREADS
    says, else 1, which is fastest for small images and leaves the other processors to the event
    loops. More may pay for large images where workers x threads is within the processors."""
    gpu_memory_fraction: float = Field(default=1.0, gt=0, le=1)
    """Most of the GPU's memory that the detectors of one worker take; past it batches get smaller,
    then run on the CPU. 1: no bound. Set it where the model server shares the GPU."""
    max_message_bytes: int = Field(default=256 * 1024 * 1024, gt=0, le=INT32_MAX)
    """Largest message either way, decompressed. Triton's own bound is 2147483647."""
    max_in_flight: int = Field(default=1024, gt=0)
    """Most unary requests and open streams at a time in one worker; one more is refused at once
    with RESOURCE_EXHAUSTED."""
    inflow: Inflow = Inflow()
    """Bounds on connections, bytes and slow clients."""
    max_connection_age_s: float = Field(default=20.0, ge=0)
    """Connections older than this are asked to end after the calls on them, seconds, give or take a
    tenth; clients open the next one by themselves. It is how a drain moves them without losing a
    call (it waits that long) and how they are dealt to the workers anew. 0: never; calls that reach
    a draining server on an open connection then fail with UNAVAILABLE."""
    upstream_timeout_s: float = Field(default=300.0, gt=0)
    """Longest a unary call to Triton may take when the client set no deadline, seconds."""
    upstream_shared_memory: Literal["off", "system"] = "off"
    """How large tensors go to Triton. system: through shared memory that this proxy
    registers with Triton and alone writes to; for a Triton on this machine that shares /dev/shm,
    runs as the same user or root, and lets clients register shared memory. Wherever that fails,
    and for sequences, streams, typed and BYTES tensors: in the message, as with off."""
    upstream_shared_memory_from_kb: int = Field(default=64, ge=0)
    """Smaller tensors go in the message, KiB: for them the way through memory is no shorter."""
    upstream_shared_memory_mb: int = Field(default=64, gt=0, le=16_384)
    """How much, MiB for each worker: the tensors of the requests in flight, and those whose client
    did not wait, for `upstream_timeout_s` after. What finds no room goes in the message. Containers
    have 64 MiB of /dev/shm by default, and Triton's Python backend uses some of it."""
    upstream_cancels_per_second: float = Field(default=10.0, ge=0)
    """Most calls to Triton that a worker cancels in a second, where the answer is void or the
    client of an enforced request has gone; others run to their end, unheard. No more than 64 do:
    past these, calls are cancelled all the same. Storms of cancellations have crashed Triton, and
    releases before 25.05 can crash at a single one (triton-inference-server #7368): take 0 with
    those. Requests that are not scored, or observed only, end with their client, as without
    Breakwater."""
    response_compression: Literal["none", "gzip", "deflate"] = "none"
    """Compression of answers, for clients that accept it."""
    request_compression: Literal["accept", "refuse"] = "accept"
    """Requests that clients compressed (gzip, deflate). accept, as Triton does: unpacked up to
    `max_message_bytes`, which bounds all that a worker works on together, too; past either they are
    refused with RESOURCE_EXHAUSTED. refuse: UNIMPLEMENTED, for those who would rather not unpack a
    gigabyte a second for clients that send a megabyte."""
    scrub_errors: bool = False
    """Replace the text of Triton's errors with a fixed one (error texts have leaked internals)."""
    principal_header: str | None = None
    """Metadata key that names the caller, set by a trusted gateway. Default: the name in the
    caller's certificate (URI, else DNS, else common name), else the peer address."""
    trusted_proxies: tuple[TrustedProxy, ...] | None = None
    """Whose `principal_header` is believed: addresses, ranges of them, and names in certificates.
    Others are called by their own certificate or address. Default: everybody's, which is right only
    where nobody but the gateway can connect."""
    limits: Limits | None = None
    """What each principal may use. Off by default."""
    drain_delay_seconds: float = Field(default=5.0, ge=0)
    """How long requests are taken as ever on shutdown while health says NOT_SERVING: load balancers
    need that long to notice (Kubernetes about a second, plus the client's own resolver)."""
    drain_seconds: float = Field(default=30.0, ge=0)
    """Longest to wait, after that, for clients to move (1.1 x `max_connection_age_s` + 1 s at most)
    and for requests in flight."""
    audit: Audit = Audit()
    capture: Capture | None = None
    """Suspicious requests kept in a folder. Off by default."""
    records: Records = Records()
    """What was scored lately, in memory."""
    tracing: Tracing | None = None
    """Spans for an OpenTelemetry collector. Off by default; trace context passes either way."""

    @field_validator("upstream_shared_memory", mode="before")
    @classmethod
    def _word(cls, value: object) -> object:
        return "off" if value is False else value  # what YAML takes the bare word for

    @model_validator(mode="after")
    def _someone_to_believe(self) -> Self:
        if self.trusted_proxies is not None and self.principal_header is None:
            raise ValueError("trusted_proxies goes with principal_header: what are they to say?")
        return self

    @field_validator("principal_header")
    @classmethod
    def _lower(cls, value: str | None) -> str | None:
        return value.lower() if value else None

    @model_validator(mode="after")
    def _room_for_one(self) -> Self:
        for name in ("max_bytes_in_flight", "max_untaken_bytes"):
            most = getattr(self.inflow, name)
            if most is not None and most < self.max_message_bytes:
                raise ValueError(
                    f"inflow.{name} ({most}) is less than one message may have: lower "
                    f"max_message_bytes ({self.max_message_bytes}) or raise it"
                )
        return self

    @property
    def most_bytes_in_flight(self) -> int:
        """Bytes of requests in progress at most."""
        return self.inflow.max_bytes_in_flight or 4 * self.max_message_bytes

    @property
    def most_untaken_bytes(self) -> int:
        """Bytes of answers that clients have not taken, at most."""
        return self.inflow.max_untaken_bytes or 2 * self.max_message_bytes

    @property
    def most_streams(self) -> int:
        """Open streams at most."""
        return self.inflow.max_streams or -(-self.max_in_flight // 2)
