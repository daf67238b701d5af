"""The policies hold for everything that is rendered."""

from __future__ import annotations

from itertools import product

import pytest

from tests.deploy import pod_policies, policies
from tests.deploy.policies import Policy
from tests.deploy.rendered import KUSTOMIZE, TARGETS, target

EVERYWHERE: tuple[Policy, ...] = (
    policies.sidecar_is_confined,
    policies.images_are_pinned,
    policies.triton_listens_on_loopback,
    policies.services_lead_to_the_front,
    policies.policies_close_the_rest,
    policies.workloads_are_found,
    pod_policies.probes_are_answered,
    pod_policies.draining_is_in_time,
    pod_policies.sidecar_is_native,
    pod_policies.resources_are_bounded,
    pod_policies.references_resolve,
    pod_policies.configured_files_are_mounted,
)
OURS: tuple[Policy, ...] = (
    policies.pods_are_confined,
    policies.nothing_of_the_node,
    pod_policies.rollout_keeps_capacity,
    pod_policies.no_secret_is_kept,
)
"""What is asked only of pods that are ours altogether."""

CASES = [
    *product(EVERYWHERE, TARGETS),
    *((policy, name) for policy, name in product(OURS, TARGETS) if "/" not in name),
]


@pytest.mark.parametrize(
    ("policy", "name"), CASES, ids=[f"{policy.__name__}-{name}" for policy, name in CASES]
)
def test_manifests_keep_to_the_policies(policy: Policy, name: str) -> None:
    assert list(policy(target(name))) == []


@pytest.mark.parametrize("name", sorted(found for _, found in pod_policies.EXTERNAL))
def test_the_readme_says_how_to_create_what_is_external(name: str) -> None:
    documented = (KUSTOMIZE / "README.md").read_text()
    assert name in documented or name == "ocr-models"  # a test's own
