from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetPolicyRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Policy(_message.Message):
    __slots__ = ("text", "digest", "path", "writable", "has_previous", "generation", "in_force", "refusal")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    WRITABLE_FIELD_NUMBER: _ClassVar[int]
    HAS_PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    IN_FORCE_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    text: str
    digest: str
    path: str
    writable: bool
    has_previous: bool
    generation: int
    in_force: bool
    refusal: str
    def __init__(self, text: _Optional[str] = ..., digest: _Optional[str] = ..., path: _Optional[str] = ..., writable: bool = ..., has_previous: bool = ..., generation: _Optional[int] = ..., in_force: bool = ..., refusal: _Optional[str] = ...) -> None: ...

class SetPolicyRequest(_message.Message):
    __slots__ = ("text", "if_digest", "dry_run")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    IF_DIGEST_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    text: str
    if_digest: str
    dry_run: bool
    def __init__(self, text: _Optional[str] = ..., if_digest: _Optional[str] = ..., dry_run: bool = ...) -> None: ...

class ChangePolicyRequest(_message.Message):
    __slots__ = ("model", "settings", "if_digest", "dry_run")
    class SettingsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    MODEL_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    IF_DIGEST_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    model: str
    settings: _containers.ScalarMap[str, str]
    if_digest: str
    dry_run: bool
    def __init__(self, model: _Optional[str] = ..., settings: _Optional[_Mapping[str, str]] = ..., if_digest: _Optional[str] = ..., dry_run: bool = ...) -> None: ...

class RollbackPolicyRequest(_message.Message):
    __slots__ = ("if_digest", "dry_run")
    IF_DIGEST_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    if_digest: str
    dry_run: bool
    def __init__(self, if_digest: _Optional[str] = ..., dry_run: bool = ...) -> None: ...

class PolicyChange(_message.Message):
    __slots__ = ("problems", "changes", "restart", "applied", "digest")
    PROBLEMS_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    RESTART_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    problems: _containers.RepeatedScalarFieldContainer[str]
    changes: _containers.RepeatedScalarFieldContainer[str]
    restart: _containers.RepeatedScalarFieldContainer[str]
    applied: bool
    digest: str
    def __init__(self, problems: _Optional[_Iterable[str]] = ..., changes: _Optional[_Iterable[str]] = ..., restart: _Optional[_Iterable[str]] = ..., applied: bool = ..., digest: _Optional[str] = ...) -> None: ...

class WatchVerdictsRequest(_message.Message):
    __slots__ = ("model", "everything")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    EVERYTHING_FIELD_NUMBER: _ClassVar[int]
    model: str
    everything: bool
    def __init__(self, model: _Optional[str] = ..., everything: bool = ...) -> None: ...

class ListSuspiciousRequest(_message.Message):
    __slots__ = ("model", "limit")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    model: str
    limit: int
    def __init__(self, model: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class ListDisagreementsRequest(_message.Message):
    __slots__ = ("model", "limit")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    model: str
    limit: int
    def __init__(self, model: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class Records(_message.Message):
    __slots__ = ("records",)
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    records: _containers.RepeatedCompositeFieldContainer[Record]
    def __init__(self, records: _Optional[_Iterable[_Union[Record, _Mapping]]] = ...) -> None: ...

class Record(_message.Message):
    __slots__ = ("id", "time_s", "model", "version", "principal", "client_id", "verdict", "score", "threshold", "scores", "p_values", "reason", "chain", "alarm", "quarantined", "failure", "action", "outcome", "streamed", "stage_ms", "label", "shadow", "thumbnail")
    class ScoresEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class PValuesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class StageMsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    TIME_S_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    P_VALUES_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    ALARM_FIELD_NUMBER: _ClassVar[int]
    QUARANTINED_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    STREAMED_FIELD_NUMBER: _ClassVar[int]
    STAGE_MS_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    THUMBNAIL_FIELD_NUMBER: _ClassVar[int]
    id: str
    time_s: float
    model: str
    version: str
    principal: str
    client_id: str
    verdict: str
    score: float
    threshold: float
    scores: _containers.ScalarMap[str, float]
    p_values: _containers.ScalarMap[str, float]
    reason: str
    chain: int
    alarm: bool
    quarantined: bool
    failure: str
    action: str
    outcome: str
    streamed: bool
    stage_ms: _containers.ScalarMap[str, float]
    label: str
    shadow: str
    thumbnail: str
    def __init__(self, id: _Optional[str] = ..., time_s: _Optional[float] = ..., model: _Optional[str] = ..., version: _Optional[str] = ..., principal: _Optional[str] = ..., client_id: _Optional[str] = ..., verdict: _Optional[str] = ..., score: _Optional[float] = ..., threshold: _Optional[float] = ..., scores: _Optional[_Mapping[str, float]] = ..., p_values: _Optional[_Mapping[str, float]] = ..., reason: _Optional[str] = ..., chain: _Optional[int] = ..., alarm: bool = ..., quarantined: bool = ..., failure: _Optional[str] = ..., action: _Optional[str] = ..., outcome: _Optional[str] = ..., streamed: bool = ..., stage_ms: _Optional[_Mapping[str, float]] = ..., label: _Optional[str] = ..., shadow: _Optional[str] = ..., thumbnail: _Optional[str] = ...) -> None: ...

class Label(_message.Message):
    __slots__ = ("id", "label")
    ID_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    id: str
    label: str
    def __init__(self, id: _Optional[str] = ..., label: _Optional[str] = ...) -> None: ...

class LabelResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetScoresRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class ExploreRequest(_message.Message):
    __slots__ = ("model", "candidate_json")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_JSON_FIELD_NUMBER: _ClassVar[int]
    model: str
    candidate_json: str
    def __init__(self, model: _Optional[str] = ..., candidate_json: _Optional[str] = ...) -> None: ...

class Json(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class DrainRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Status(_message.Message):
    __slots__ = ("ready", "draining", "in_flight", "workers", "workers_ready", "version")
    READY_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    WORKERS_READY_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ready: bool
    draining: bool
    in_flight: int
    workers: int
    workers_ready: int
    version: str
    def __init__(self, ready: bool = ..., draining: bool = ..., in_flight: _Optional[int] = ..., workers: _Optional[int] = ..., workers_ready: _Optional[int] = ..., version: _Optional[str] = ...) -> None: ...

class ListHistoryRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class History(_message.Message):
    __slots__ = ("remembered", "shared", "principals")
    REMEMBERED_FIELD_NUMBER: _ClassVar[int]
    SHARED_FIELD_NUMBER: _ClassVar[int]
    PRINCIPALS_FIELD_NUMBER: _ClassVar[int]
    remembered: int
    shared: str
    principals: _containers.RepeatedCompositeFieldContainer[Standing]
    def __init__(self, remembered: _Optional[int] = ..., shared: _Optional[str] = ..., principals: _Optional[_Iterable[_Union[Standing, _Mapping]]] = ...) -> None: ...

class Standing(_message.Message):
    __slots__ = ("model", "principal", "alarms", "quarantined_for_s", "longest_chain", "last_alarm")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    ALARMS_FIELD_NUMBER: _ClassVar[int]
    QUARANTINED_FOR_S_FIELD_NUMBER: _ClassVar[int]
    LONGEST_CHAIN_FIELD_NUMBER: _ClassVar[int]
    LAST_ALARM_FIELD_NUMBER: _ClassVar[int]
    model: str
    principal: str
    alarms: int
    quarantined_for_s: float
    longest_chain: int
    last_alarm: float
    def __init__(self, model: _Optional[str] = ..., principal: _Optional[str] = ..., alarms: _Optional[int] = ..., quarantined_for_s: _Optional[float] = ..., longest_chain: _Optional[int] = ..., last_alarm: _Optional[float] = ...) -> None: ...

class ClearHistoryRequest(_message.Message):
    __slots__ = ("principal", "everybody", "model")
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    EVERYBODY_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    principal: str
    everybody: bool
    model: str
    def __init__(self, principal: _Optional[str] = ..., everybody: bool = ..., model: _Optional[str] = ...) -> None: ...

class ClearHistoryResponse(_message.Message):
    __slots__ = ("cleared",)
    CLEARED_FIELD_NUMBER: _ClassVar[int]
    cleared: int
    def __init__(self, cleared: _Optional[int] = ...) -> None: ...
