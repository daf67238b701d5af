"""What the section `limits` takes."""

import pytest
from pydantic import ValidationError

from proxy.config import Config


@pytest.mark.parametrize(
    "limit",
    [{"requests_per_second": 0}, {"burst": 0}, {"rpc_allow": ["health"]}, {"max_in_flight": -1}],
)
def test_limits_that_make_no_sense_are_refused(limit: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Config.model_validate({"upstream": "127.0.0.1:1", "limits": {"default": limit}})
