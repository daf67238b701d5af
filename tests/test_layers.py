"""Who may import whom. Read the table from the top: each module rests on those below it.

An edge is written as it is made: plain at import; `+` inside a function, when it is needed; `~`
for type checking only. The table says exactly what is, so that every new edge is a decision.
"""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("proxy", "detectors", "purifiers", "tuning")

TABLE = {
    # tuning: calibrate, measure, demonstrate
    "tuning.demo": "tuning.demo.story",
    "tuning.demo.story": (
        "proxy.configfile proxy.errors purifiers tuning.calibrate tuning.demo.digits "
        "tuning.demo.picture tuning.demo.policy tuning.demo.sidecar tuning.demo.table "
        "tuning.demo.traffic tuning.triton numpy rich torch"
    ),
    "tuning.demo.table": ("detectors.binomial tuning.demo.policy tuning.demo.traffic numpy rich"),
    "tuning.calibrate": (
        "detectors.rule proxy.adapt proxy.artifacts proxy.config proxy.defences proxy.devices "
        "proxy.errors proxy.lineage proxy.parts proxy.upstream proxy.weights "
        "tuning.data_facts tuning.dataset tuning.fit tuning.lineage tuning.local_model rich"
    ),
    "tuning.fit_networks": (
        "proxy.adapt proxy.config proxy.defences proxy.devices proxy.errors proxy.parts "
        "proxy.upstream proxy.weights purifiers.learned tuning.batches tuning.dataset "
        "tuning.fitting tuning.local_model tuning.model_client rich torch"
    ),
    "tuning.fitting": (
        "proxy.weights purifiers.learned tuning.attacked_images tuning.batches tuning.lessons "
        "tuning.local_model tuning.train rich torch"
    ),
    "tuning.train": (
        "proxy.errors proxy.files proxy.weights purifiers.learned tuning.batches tuning.lessons "
        "safetensors torch"
    ),
    "tuning.lessons": (
        "detectors.benign purifiers.learned tuning.attacked_images tuning.batches "
        "tuning.local_model torch"
    ),
    "tuning.attacked_images": (
        "proxy.files tuning.attacks tuning.batches tuning.local_model safetensors torch"
    ),
    "tuning.attacks": "tuning.local_model torch",
    "tuning.local_model": "proxy.adapt proxy.errors +onnx +onnx2fx +torch torch",
    "tuning.batches": "purifiers.learned torch",
    "tuning.fit": (
        "detectors.base detectors.benign detectors.calibration detectors.drift_reference "
        "detectors.rule proxy.adapt proxy.config proxy.devices proxy.errors proxy.parts "
        "proxy.rules proxy.scoring proxy.upstream proxy.weights tuning.attacks tuning.batches "
        "tuning.local_model tuning.past tuning.supervise tuning.witness rich torch"
    ),
    "tuning.past": (
        "detectors.base detectors.chains proxy.adapt proxy.errors tuning.model_client "
        "tuning.sequences rich torch"
    ),
    "tuning.sequences": (
        "detectors.benign_sequences detectors.chains detectors.steps proxy.history.fingerprints "
        "proxy.history.linking proxy.history.local tuning.batches numpy rich torch"
    ),
    "tuning.witness": "detectors.base proxy.adapt proxy.upstream tuning.model_client rich torch",
    "tuning.supervise": (
        "detectors.calibration detectors.fusion proxy.errors +sklearn numpy torch"
    ),
    "tuning.report": (
        "detectors proxy.adapt proxy.config proxy.configfile proxy.cpu_quota proxy.defence "
        "proxy.defences proxy.drift.panes proxy.errors proxy.history.history proxy.metrics "
        "proxy.rpc proxy.scoring proxy.upstream purifiers purifiers.base purifiers.plugins "
        "rich"
    ),
    "tuning.contract": "detectors detectors.base detectors.chains purifiers torch",
    "tuning.model_client": (
        "proxy.adapt proxy.answers proxy.config proxy.defences proxy.errors proxy.kinds "
        "proxy.rpc proxy.upstream proxy.wire torch"
    ),
    "tuning.demo.traffic": (
        "proxy.rpc proxy.wire tuning.demo.digits art grpc numpy torch tritonclient"
    ),
    "tuning.dataset": "proxy.config proxy.errors numpy torch",
    "tuning.demo.sidecar": "proxy.errors",
    "tuning": "",
    "tuning.demo.digits": "numpy sklearn torch",
    "tuning.demo.picture": "matplotlib numpy",
    "tuning.demo.policy": "tuning.demo.digits yaml",
    "tuning.knee": "tuning.load",
    "tuning.load": "proxy.rpc grpc numpy",
    "tuning.processes": "",
    "tuning.costs": "tuning.knee tuning.variants rich",
    "tuning.traffic": ("proxy.adapt proxy.errors proxy.kinds proxy.wire tuning.dataset torch"),
    "tuning.variants": "detectors.base proxy.config proxy.errors proxy.parts tuning.narrow yaml",
    "tuning.evaluate": "",
    "tuning.evaluate.adaptive": "detectors.benign torch",
    "tuning.evaluate.adversaries": "numpy torch +art",
    "tuning.evaluate.attackers": (
        "tuning.evaluate.attempt tuning.evaluate.oracle numpy torch +art"
    ),
    "tuning.evaluate.attacks": (
        "detectors.benign tuning.evaluate.adversaries tuning.evaluate.store torch"
    ),
    "tuning.evaluate.attempt": "tuning.evaluate.oracle numpy",
    "tuning.evaluate.confrontation": "detectors.binomial tuning.evaluate.adaptive torch",
    "tuning.evaluate.samples": (
        "detectors.benign proxy.errors proxy.weights purifiers tuning.attacks tuning.batches "
        "tuning.evaluate.adaptive tuning.evaluate.attacks tuning.evaluate.network "
        "tuning.evaluate.sizes tuning.evaluate.store tuning.evaluate.subject "
        "tuning.evaluate.surrogate tuning.evaluate.targets tuning.evaluate.unseen torch"
    ),
    "tuning.evaluate.oracle": "numpy torch",
    "tuning.evaluate.store": "proxy.files safetensors torch",
    "tuning.evaluate.targets": (
        "detectors.base detectors.chains purifiers tuning.evaluate.adaptive torch"
    ),
    "tuning.evaluate.unseen": "detectors.benign PIL numpy torch",
    "tuning.lineage": "proxy.config proxy.lineage tuning.dataset numpy torch",
    "tuning.page": "",
    "tuning.page.rows": "",
    "tuning.page.canvas": "matplotlib",
    "tuning.page.markup": "tuning.page.canvas tuning.page.rows PIL numpy",
    "tuning.page.plots": "tuning.page.canvas tuning.page.rows matplotlib numpy",
    "tuning.page.document": "",
    "tuning.data_facts": "proxy.lineage",
    "tuning.live_scores": "proxy.errors numpy",
    "tuning.screening": "tuning.live_scores numpy",
    "tuning.sufficiency": "detectors.rule proxy.errors tuning.screening",
    "tuning.drift": "detectors.binomial tuning.live_scores numpy",
    "tuning.live_calibration": (
        "detectors.binomial detectors.calibration detectors.rule proxy.errors tuning.drift "
        "tuning.live_scores tuning.screening tuning.sufficiency numpy torch"
    ),
    "tuning.evaluate.page": (
        "proxy.evaluation proxy.files proxy.lineage tuning.data_facts "
        "tuning.evaluate.conclusion tuning.evaluate.page_detection "
        "tuning.evaluate.page_service tuning.evaluate.threats tuning.evaluate.titles "
        "tuning.page.document tuning.page.markup tuning.page.rows numpy pydantic yaml"
    ),
    "tuning.evaluate.page_detection": (
        "proxy.evaluation tuning.evaluate.conclusion tuning.evaluate.sizes "
        "tuning.evaluate.titles tuning.page.ladder tuning.page.markup tuning.page.plots "
        "tuning.page.rows numpy"
    ),
    "tuning.evaluate.page_service": (
        "tuning.evaluate.conclusion tuning.evaluate.titles tuning.page.ladder "
        "tuning.page.markup tuning.page.plots tuning.page.rows tuning.page.strip"
    ),
    "tuning.evaluate.titles": "",
    "tuning.evaluate.threats": "tuning.evaluate.sizes tuning.page.rows",
    "tuning.evaluate.conclusion": ("tuning.evaluate.sizes tuning.evaluate.titles tuning.page.rows"),
    "tuning.page.ladder": "tuning.page.canvas tuning.page.rows matplotlib",
    "tuning.diff": (
        "proxy.artifacts proxy.config proxy.configfile proxy.errors proxy.explorer.sweep "
        "proxy.flow proxy.policy proxy.records.snapshot numpy torch"
    ),
    "tuning.diff_report": "detectors.binomial proxy.history.listing tuning.diff numpy rich",
    "tuning.evaluate.endpoint": (
        "proxy.adapt proxy.answers proxy.errors proxy.kinds proxy.rpc proxy.wire "
        "tuning.demo.sidecar tuning.evaluate.oracle tuning.evaluate.subject tuning.narrow "
        "tuning.variants grpc numpy torch"
    ),
    "tuning.evaluate.figures": "detectors.binomial tuning.evaluate.store torch",
    "tuning.evaluate.knowing": (
        "purifiers tuning.batches tuning.evaluate.adaptive tuning.evaluate.confrontation "
        "tuning.evaluate.network tuning.evaluate.samples tuning.evaluate.sizes "
        "tuning.evaluate.store tuning.evaluate.subject tuning.evaluate.targets torch"
    ),
    "tuning.evaluate.pictures": (
        "purifiers tuning.batches tuning.evaluate.recording tuning.evaluate.samples "
        "tuning.evaluate.subject numpy torch"
    ),
    "tuning.evaluate.queries": (
        "tuning.evaluate.attackers tuning.evaluate.attempt tuning.evaluate.endpoint "
        "tuning.evaluate.figures tuning.evaluate.samples tuning.evaluate.sizes "
        "tuning.evaluate.store tuning.evaluate.subject numpy torch"
    ),
    "tuning.evaluate.recording": (
        "detectors.base detectors.chains detectors.rule proxy.evaluation proxy.files "
        "proxy.upstream proxy.weights purifiers purifiers.aggregate tuning.batches "
        "tuning.evaluate.attacks tuning.evaluate.samples tuning.evaluate.sizes "
        "tuning.evaluate.store tuning.evaluate.subject tuning.model_client tuning.witness "
        "rich torch"
    ),
    "tuning.evaluate.rows": (
        "detectors.rule tuning.evaluate.figures tuning.evaluate.recording "
        "tuning.evaluate.samples tuning.evaluate.sizes tuning.evaluate.store torch"
    ),
    "tuning.evaluate.run": (
        "proxy.config proxy.evaluation proxy.files tuning.data_facts tuning.evaluate.declared "
        "tuning.evaluate.endpoint tuning.evaluate.knowing tuning.evaluate.page "
        "tuning.evaluate.pictures tuning.evaluate.queries tuning.evaluate.recording "
        "tuning.evaluate.rows tuning.evaluate.samples tuning.evaluate.serving "
        "tuning.evaluate.sizes tuning.evaluate.store tuning.evaluate.subject "
        "tuning.evaluate.tables tuning.evaluate.threats tuning.evaluate.wanted tuning.lineage "
        "rich"
    ),
    "tuning.evaluate.serving": (
        "proxy.errors proxy.pb proxy.rpc proxy.upstream tuning.evaluate.endpoint "
        "tuning.evaluate.figures tuning.evaluate.recording tuning.evaluate.samples "
        "tuning.evaluate.store tuning.evaluate.subject tuning.load tuning.processes numpy "
        "torch uvloop"
    ),
    "tuning.evaluate.sizes": "",
    "tuning.evaluate.subject": (
        "detectors.base detectors.benign detectors.rule proxy.adapt proxy.artifacts "
        "proxy.config proxy.defences proxy.devices proxy.errors proxy.parts proxy.rules "
        "proxy.scoring proxy.upstream proxy.weights purifiers tuning.batches tuning.dataset "
        "tuning.evaluate.network tuning.evaluate.store tuning.local_model tuning.model_client "
        "rich torch"
    ),
    "tuning.evaluate.surrogate": (
        "detectors.surrogate_network proxy.weights tuning.batches tuning.evaluate.network "
        "tuning.evaluate.store tuning.evaluate.subject tuning.lessons tuning.train torch"
    ),
    "tuning.evaluate.tables": "tuning.evaluate.titles rich",
    "tuning.live": (
        "proxy.artifacts proxy.config proxy.control.client proxy.errors proxy.parts proxy.pb "
        "proxy.rules proxy.weights tuning.live_calibration tuning.live_report "
        "tuning.live_scores tuning.sufficiency numpy rich torch"
    ),
    "tuning.live_report": "tuning.live_calibration rich",
    "tuning.evaluate.network": "proxy.cpu_quota tuning.local_model torch",
    "tuning.evaluate.wanted": (
        "proxy.errors tuning.evaluate.attacks tuning.evaluate.queries tuning.evaluate.sizes "
        "tuning.lineage"
    ),
    "tuning.evaluate.declared": (
        "proxy.artifacts tuning.dataset tuning.evaluate.rows tuning.evaluate.subject "
        "tuning.evaluate.wanted tuning.lineage torch"
    ),
    "tuning.card": "",
    "tuning.card.background": (
        "proxy.config proxy.lineage tuning.card.blocks tuning.card.state tuning.data_facts pydantic"
    ),
    "tuning.card.blocks": "tuning.page.document tuning.page.markup",
    "tuning.card.content": (
        "proxy.config tuning.card.background tuning.card.blocks tuning.card.gaps "
        "tuning.card.state tuning.evaluate.conclusion tuning.evaluate.threats "
        "tuning.evaluate.titles tuning.page.rows"
    ),
    "tuning.card.gaps": (
        "detectors proxy.config purifiers tuning.evaluate.conclusion tuning.evaluate.sizes "
        "tuning.evaluate.titles tuning.page.rows"
    ),
    "tuning.card.state": (
        "detectors.rule proxy.artifacts proxy.config proxy.errors proxy.evaluation "
        "proxy.parts proxy.rules tuning.card.gaps tuning.evaluate.conclusion torch"
    ),
    "tuning.card.write": (
        "proxy.config proxy.errors proxy.files tuning.card.blocks tuning.card.content "
        "tuning.card.state rich"
    ),
    "tuning.tune": (
        "proxy.configfile proxy.errors tuning.search.account tuning.search.basis "
        "tuning.search.front tuning.search.latency tuning.search.measure "
        "tuning.search.optimise tuning.search.outcome tuning.search.palette "
        "tuning.search.promises tuning.search.proof tuning.search.recorded "
        "tuning.search.shown tuning.search.space tuning.search.threats tuning.search.written "
        "rich +tuning.search.picture"
    ),
    "tuning.capacity": (
        "proxy.artifacts proxy.config proxy.devices proxy.errors tuning.costs "
        "tuning.demo.sidecar tuning.knee tuning.load tuning.model_client tuning.narrow "
        "tuning.processes tuning.traffic tuning.variants rich uvloop +tuning.capacity_picture"
    ),
    "tuning.narrow": (
        "detectors.calibration proxy.artifacts proxy.config proxy.errors proxy.parts "
        "proxy.weights torch"
    ),
    "tuning.search": "",
    "tuning.search.front": "tuning.search.optimise tuning.search.outcome",
    "tuning.search.fusing": (
        "detectors.calibration detectors.fusion detectors.rule detectors.tails proxy.cascade "
        "tuning.search.space numpy torch"
    ),
    "tuning.search.latency": "proxy.cascade tuning.search.outcome tuning.search.space numpy",
    "tuning.search.optimise": (
        "proxy.errors tuning.search.latency tuning.search.outcome tuning.search.space +optuna "
        "~optuna"
    ),
    "tuning.search.outcome": (
        "detectors.binomial detectors.calibration detectors.rule tuning.search.fusing "
        "tuning.search.recorded tuning.search.space numpy"
    ),
    "tuning.search.promises": (
        "detectors.benign proxy.adapt proxy.errors proxy.kinds proxy.wire "
        "tuning.search.measure tuning.search.outcome grpc numpy torch"
    ),
    "tuning.search.proof": (
        "proxy.config tuning.search.basis tuning.search.front tuning.search.latency "
        "tuning.search.measure tuning.search.optimise tuning.search.outcome "
        "tuning.search.promises tuning.search.recorded tuning.search.space numpy rich"
    ),
    "tuning.search.recorded": "proxy.errors proxy.evaluation numpy torch",
    "tuning.search.shown": (
        "tuning.search.front tuning.search.latency tuning.search.optimise "
        "tuning.search.outcome tuning.search.promises tuning.search.recorded rich"
    ),
    "tuning.search.space": (
        "detectors.base detectors.calibration proxy.cascade proxy.config proxy.errors proxy.parts"
    ),
    "tuning.search.threats": "proxy.errors tuning.search.front tuning.search.recorded",
    "tuning.search.written": (
        "proxy.config proxy.configfile proxy.errors proxy.files tuning.narrow pydantic ruamel"
    ),
    "tuning.capacity_picture": "tuning.knee matplotlib",
    "tuning.search.account": (
        "proxy.files tuning.search.basis tuning.search.front tuning.search.latency "
        "tuning.search.optimise tuning.search.promises tuning.search.recorded "
        "tuning.search.shown"
    ),
    "tuning.search.basis": (
        "detectors.calibration proxy.adapt proxy.artifacts proxy.config proxy.errors "
        "proxy.evaluation proxy.parts purifiers tuning.batches tuning.dataset "
        "tuning.model_client tuning.narrow tuning.search.recorded torch"
    ),
    "tuning.search.measure": (
        "detectors.base proxy.artifacts proxy.config proxy.errors proxy.rpc proxy.weights "
        "tuning.demo.sidecar tuning.narrow tuning.processes tuning.search.latency "
        "tuning.search.space tuning.variants grpc torch"
    ),
    "tuning.search.palette": (
        "proxy.adapt proxy.artifacts proxy.config proxy.defences proxy.devices proxy.errors "
        "proxy.parts proxy.upstream proxy.weights purifiers tuning.batches tuning.dataset "
        "tuning.evaluate.recording tuning.evaluate.sizes tuning.evaluate.subject tuning.fit "
        "tuning.narrow tuning.search.basis rich torch"
    ),
    "tuning.search.picture": "tuning.search.front tuning.search.optimise matplotlib",
    "tuning.page.strip": "tuning.page.canvas matplotlib",
    "tuning.triton": "",
    # proxy: the sidecar
    "proxy.__main__": "proxy.cli",
    "proxy.cli": (
        "proxy.commands.audit proxy.commands.calibrate proxy.commands.card "
        "proxy.commands.check proxy.commands.demo proxy.commands.diff proxy.commands.drain "
        "proxy.commands.evaluate proxy.commands.fit proxy.commands.health "
        "proxy.commands.history proxy.commands.label proxy.commands.policy "
        "proxy.commands.replay proxy.commands.serve proxy.commands.suspicious "
        "proxy.commands.tune proxy.commands.watch proxy.errors proxy.log"
    ),
    "proxy.commands": "",
    "proxy.commands.options": (
        "proxy.errors +proxy.config +proxy.configfile +pydantic ~proxy.config"
    ),
    "proxy.commands.serve": (
        "proxy.commands.options +proxy.allocator +proxy.cpu_quota +proxy.server "
        "+proxy.supervisor +uvloop ~proxy.config"
    ),
    "proxy.commands.calibrate": (
        "proxy.commands.control_port proxy.commands.options proxy.errors +tuning.calibrate "
        "+tuning.lineage +tuning.live +tuning.live_calibration ~proxy.control.client"
    ),
    "proxy.commands.fit": "proxy.commands.options proxy.errors +tuning.fit_networks",
    "proxy.commands.tune": (
        "proxy.commands.options proxy.errors +tuning.capacity +tuning.search.basis +tuning.tune"
    ),
    "proxy.commands.check": "proxy.commands.options +tuning.report",
    "proxy.commands.history": (
        "proxy.commands.control_port proxy.commands.options +proxy.history.listing +proxy.inquiry"
    ),
    "proxy.commands.demo": "proxy.commands.options +tuning.demo",
    "proxy.commands.control_port": (
        "proxy.commands.options proxy.errors +proxy.control.client ~proxy.control.client"
    ),
    "proxy.commands.label": (
        "proxy.commands.control_port proxy.commands.options +proxy.history.listing +proxy.pb "
        "~proxy.control.client"
    ),
    "proxy.commands.policy": (
        "proxy.commands.control_port proxy.commands.options proxy.errors "
        "+proxy.control.client +proxy.control.listing +proxy.pb +google +rich "
        "~proxy.control.client"
    ),
    "proxy.commands.suspicious": (
        "proxy.commands.control_port proxy.commands.options +proxy.control.listing "
        "+proxy.control.messages +proxy.pb +rich ~proxy.control.client"
    ),
    "proxy.commands.watch": (
        "proxy.commands.control_port proxy.commands.options +proxy.control.listing "
        "+proxy.control.messages +proxy.pb +rich ~proxy.control.client"
    ),
    "proxy.commands.diff": (
        "proxy.commands.control_port proxy.commands.options proxy.errors +proxy.pb "
        "+tuning.diff +tuning.diff_report +rich ~proxy.control.client"
    ),
    "proxy.commands.evaluate": (
        "proxy.commands.options proxy.errors +tuning.evaluate.run +tuning.evaluate.wanted "
        "+tuning.lineage"
    ),
    "proxy.commands.card": "proxy.commands.options proxy.errors +tuning.card.write",
    "proxy.commands.health": (
        "proxy.commands.options +proxy.errors +proxy.identity.settings +proxy.probe"
    ),
    "proxy.commands.drain": "proxy.commands.control_port proxy.commands.options proxy.errors",
    "proxy.commands.audit": (
        "proxy.commands.options +proxy.audit_verify +proxy.keyfile ~proxy.audit_verify"
    ),
    "proxy.commands.replay": (
        "proxy.commands.options proxy.errors +proxy.capture.replay +proxy.files "
        "~proxy.capture.replay"
    ),
    "proxy.inquiry": "proxy.history.listing proxy.history.quarantine rich",
    "proxy.server": (
        "proxy.admin proxy.audit proxy.batcher proxy.capture.capturer proxy.config "
        "proxy.console.routes proxy.control.hosting proxy.control.policy_file proxy.defences "
        "proxy.drain proxy.drift.endpoints proxy.errors proxy.handoff "
        "proxy.identity.admin_tls proxy.identity.rotation proxy.inflow.descriptors "
        "proxy.inflow.memory proxy.inflow.sockets proxy.inflow.untaken proxy.inflow.waiting "
        "proxy.keyfile proxy.metrics proxy.metrics_listener proxy.monitor proxy.pipeline "
        "proxy.records.kept proxy.records.record proxy.records.records proxy.records.sketch "
        "proxy.records.snapshot proxy.records.watches proxy.reflection proxy.service "
        "proxy.tasks proxy.tracing.settings proxy.unpacking proxy.upstream proxy.watcher grpc "
        "grpc_health +proxy.drift.watch +proxy.explorer.desk +proxy.history.history "
        "+proxy.tracing.tracing ~proxy.drift.watch ~proxy.explorer.desk "
        "~proxy.history.history ~proxy.tracing.tracing"
    ),
    "proxy.monitor": (
        "proxy.defences proxy.errors proxy.health proxy.pb proxy.rpc proxy.upstream google"
    ),
    "proxy.defences": (
        "proxy.adapt proxy.breaker proxy.calibration_age proxy.config proxy.defence "
        "proxy.errors proxy.keyfile proxy.metrics proxy.pb proxy.rpc proxy.shadow_policy "
        "proxy.upstream +detectors.drift_reference +proxy.artifacts +proxy.devices "
        "+proxy.engine +proxy.memory_ladder +proxy.parts +proxy.rules ~detectors.calibration "
        "~detectors.drift_reference ~proxy.artifacts ~proxy.history.salts ~proxy.scoring "
        "~torch"
    ),
    "proxy.service": (
        "proxy.config proxy.errors proxy.flow proxy.headers proxy.identity.principal "
        "proxy.inflow.untaken proxy.inflow.waiting proxy.metrics proxy.pb proxy.pipeline "
        "proxy.regions proxy.rpc proxy.status proxy.stream proxy.unpacking proxy.upstream "
        "grpc ~proxy.tracing.tracing"
    ),
    "proxy.scoring": (
        "detectors.base detectors.drift_inputs detectors.query_history detectors.rule "
        "proxy.adapt proxy.artifacts proxy.breaker proxy.cascade proxy.case proxy.config "
        "proxy.drift.thrift proxy.errors proxy.flow proxy.history.fingerprints "
        "proxy.history.salts proxy.kinds proxy.panel proxy.parts proxy.purification "
        "proxy.quick proxy.rules proxy.weights numpy torch"
    ),
    "proxy.quick": (
        "detectors detectors.answers detectors.base detectors.fusion proxy.cascade proxy.case"
    ),
    "proxy.rules": (
        "detectors.base detectors.calibration detectors.fusion detectors.query_history "
        "detectors.rule detectors.secrecy proxy.cascade proxy.config proxy.errors proxy.flow "
        "proxy.keyfile proxy.policy numpy torch"
    ),
    "proxy.panel": "detectors.base proxy.breaker proxy.cascade proxy.memory_ladder torch",
    "proxy.cascade": "detectors.base detectors.rule purifiers.learned torch",
    "proxy.stream": (
        "proxy.errors proxy.flow proxy.headers proxy.inflow.untaken proxy.pb proxy.pipeline "
        "proxy.rpc proxy.status proxy.tasks proxy.unpacking proxy.upstream proxy.wire google "
        "grpc"
    ),
    "proxy.artifacts": (
        "detectors.calibration detectors.drift_reference proxy.config proxy.errors "
        "proxy.files proxy.lineage proxy.parts proxy.weights pydantic safetensors torch"
    ),
    "proxy.weights": (
        "detectors proxy.errors proxy.files purifiers purifiers.learned pydantic safetensors torch"
    ),
    "proxy.purification": (
        "proxy.adapt proxy.case proxy.codec proxy.config proxy.errors proxy.memory_ladder "
        "proxy.tensors purifiers purifiers.aggregate numpy torch"
    ),
    "proxy.parts": (
        "detectors detectors.purified_view proxy.config proxy.errors proxy.kinds purifiers"
    ),
    "proxy.files": "",
    "proxy.pipeline": (
        "proxy.aggregator proxy.answers proxy.assessor proxy.audit proxy.batcher proxy.budget "
        "proxy.cancellations proxy.capture.capturer proxy.config proxy.defence proxy.device "
        "proxy.enforcer proxy.errors proxy.evidence proxy.flow proxy.forward proxy.inspection "
        "proxy.limits.limiter proxy.metrics proxy.observer proxy.pacing proxy.reader "
        "proxy.records.record proxy.records.records proxy.regions proxy.shadow "
        "proxy.shared_memory proxy.tasks proxy.upstream proxy.validation proxy.wire "
        "~proxy.history.history"
    ),
    "proxy.observer": (
        "proxy.assessor proxy.budget proxy.errors proxy.evidence proxy.flow proxy.inspection "
        "proxy.policy proxy.questions proxy.tasks proxy.upstream"
    ),
    "proxy.assessor": (
        "proxy.device proxy.drift.leniency proxy.errors proxy.evidence proxy.flow "
        "proxy.inspection proxy.policy proxy.questions"
    ),
    "proxy.aggregator": (
        "proxy.answers proxy.device proxy.errors proxy.evidence proxy.inspection proxy.policy "
        "proxy.queries proxy.questions proxy.tasks proxy.upstream numpy"
    ),
    "proxy.evidence": (
        "proxy.answers proxy.breaker proxy.budget proxy.case proxy.device proxy.errors "
        "proxy.flow proxy.inspection proxy.questions proxy.tasks proxy.upstream "
        "~proxy.history.history ~proxy.scoring"
    ),
    "proxy.devices": "proxy.cpu_quota proxy.errors torch",
    "proxy.cpu_quota": "",
    "proxy.memory_ladder": "torch",
    "proxy.engine": (
        "detectors.base proxy.adapt proxy.artifacts proxy.case proxy.config proxy.flow "
        "proxy.history.salts proxy.memory_ladder proxy.purification proxy.scoring torch"
    ),
    "proxy.device": (
        "proxy.batcher proxy.budget proxy.case proxy.errors proxy.flow proxy.forecast "
        "proxy.inspection numpy"
    ),
    "proxy.queries": (
        "proxy.answers proxy.case proxy.errors proxy.flow proxy.inspection proxy.tasks "
        "proxy.upstream numpy"
    ),
    "proxy.enforcer": (
        "proxy.aggregator proxy.assessor proxy.decoy proxy.defence proxy.errors proxy.forward "
        "proxy.inspection proxy.tasks proxy.upstream"
    ),
    "proxy.forward": (
        "proxy.answers proxy.budget proxy.cancellations proxy.inspection proxy.tasks proxy.upstream"
    ),
    "proxy.cancellations": "",
    "proxy.dispatch": "",
    "proxy.inspection": (
        "proxy.adapt proxy.budget proxy.case proxy.config proxy.defence proxy.errors proxy.flow "
        "proxy.upstream proxy.wire ~proxy.scoring"
    ),
    "proxy.answers": "proxy.adapt proxy.case proxy.datatypes proxy.errors proxy.wire numpy",
    "proxy.reader": "proxy.config proxy.errors proxy.fields proxy.validation proxy.wire",
    "proxy.validation": "proxy.datatypes proxy.errors proxy.fields proxy.pb proxy.wire numpy",
    "proxy.supervisor": (
        "proxy.admin proxy.config proxy.console.routes proxy.control.hosting "
        "proxy.control.policy_file proxy.control.workers proxy.drain proxy.drift.workers "
        "proxy.errors proxy.explorer.workers proxy.history.memory_file proxy.history.overview "
        "proxy.identity.admin_tls proxy.metrics proxy.metrics_listener proxy.records.sketch "
        "proxy.records.workers proxy.runtime_folder proxy.tasks aiohttp"
    ),
    "proxy.kinds": (
        "detectors proxy.adapt proxy.codec proxy.config proxy.errors proxy.tensors proxy.vectors "
        "proxy.waveforms purifiers purifiers.base"
    ),
    "proxy.tensors": (
        "proxy.adapt proxy.case proxy.codec proxy.datatypes proxy.errors proxy.images numpy torch"
    ),
    "proxy.vectors": "proxy.case proxy.codec proxy.errors torch",
    "proxy.waveforms": "proxy.adapt proxy.case proxy.codec proxy.errors torch",
    "proxy.codec": "proxy.adapt proxy.case proxy.errors numpy torch",
    "proxy.wire": "proxy.datatypes proxy.errors proxy.fields proxy.pb proxy.unread google numpy",
    "proxy.datatypes": "proxy.errors proxy.fields proxy.pb numpy",
    "proxy.defence": (
        "proxy.adapt proxy.config proxy.dispatch proxy.model_metrics proxy.shadow_metrics "
        "~proxy.drift.population ~proxy.scoring"
    ),
    "proxy.metrics": (
        "proxy.capture.metrics proxy.config proxy.drift.gauges proxy.model_metrics "
        "proxy.shadow_metrics prometheus_client"
    ),
    "proxy.shared_memory": "proxy.errors proxy.pb proxy.rpc proxy.upstream proxy.wire",
    "proxy.adapt": "proxy.config proxy.errors proxy.layouts proxy.pb",
    "proxy.layouts": "proxy.config proxy.errors proxy.pb",
    "proxy.audit": "proxy.audit_chain proxy.audit_line proxy.flow",
    "proxy.batcher": "proxy.errors",
    "proxy.breaker": "",
    "proxy.forecast": "",
    "proxy.budget": "proxy.flow",
    "proxy.configfile": "proxy.config proxy.errors pydantic yaml",
    "proxy.fields": "proxy.errors",
    "proxy.headers": "proxy.upstream",
    "proxy.keyfile": "proxy.errors",
    "proxy.runtime_folder": "",
    "proxy.history.history": (
        "detectors.chains detectors.sketch detectors.steps proxy.config proxy.history.access "
        "proxy.history.fingerprints proxy.history.linking proxy.history.local proxy.history.memory "
        "proxy.history.pardons proxy.history.quarantine proxy.history.salts proxy.history.shared "
        "proxy.history.store proxy.history.trails proxy.metrics numpy"
    ),
    "proxy.history.linking": (
        "detectors.chains detectors.steps proxy.history.fingerprints proxy.history.store numpy"
    ),
    "proxy.history.fingerprints": (
        "detectors.content_fingerprint detectors.digest detectors.perceptual_fingerprint "
        "detectors.sketch numpy torch"
    ),
    "proxy.history.salts": "proxy.config proxy.keyfile",
    "proxy.history.trails": "detectors.sketch detectors.steps proxy.history.memory numpy",
    "proxy.history.pardons": "proxy.history.memory numpy",
    "proxy.history.local": (
        "proxy.history.fair_slots proxy.history.key_index proxy.history.memory "
        "proxy.history.store numpy"
    ),
    "proxy.history.fair_slots": "proxy.history.memory numpy",
    "proxy.history.key_index": "proxy.history.memory numpy",
    "proxy.history.memory": "proxy.history.memory_file numpy",
    "proxy.history.memory_file": "",
    "proxy.history.shared": (
        "proxy.history.access proxy.history.keyspace proxy.history.link proxy.history.lookups "
        "proxy.history.store proxy.history.write_behind proxy.tasks numpy"
    ),
    "proxy.history.lookups": (
        "proxy.history.keyspace proxy.history.link proxy.history.store proxy.tasks numpy redis"
    ),
    "proxy.history.write_behind": (
        "proxy.history.access proxy.history.keyspace proxy.history.link proxy.history.store "
        "numpy redis"
    ),
    "proxy.history.keyspace": "proxy.history.link proxy.history.store numpy",
    "proxy.history.link": "proxy.errors proxy.history.access proxy.tasks redis",
    "proxy.history.access": "proxy.errors redis",
    "proxy.history.listing": "proxy.history.quarantine rich",
    "proxy.history.overview": "",
    "proxy.history.quarantine": "proxy.history.memory numpy",
    "proxy.history.store": "numpy",
    "proxy.history": "",
    "proxy.images": "proxy.errors proxy.image_files PIL numpy",
    "proxy.model_metrics": "proxy.errors proxy.flow prometheus_client",
    "proxy.policy": "proxy.config proxy.flow",
    "proxy.reflection": "proxy.pb proxy.rpc google grpc grpc_health grpc_reflection",
    "proxy.status": "proxy.errors grpc",
    "proxy.handoff": (
        "proxy.arena proxy.errors proxy.identity.settings proxy.pb proxy.references proxy.rpc "
        "proxy.upstream proxy.wire"
    ),
    "proxy.references": "proxy.arena proxy.datatypes proxy.errors proxy.fields proxy.wire",
    "proxy.regions": "proxy.arena proxy.errors proxy.pb proxy.rpc proxy.wire google",
    "proxy.arena": "proxy.fields",
    "proxy.upstream": (
        "proxy.errors proxy.identity.settings proxy.identity.upstream_tls proxy.rpc grpc "
        "~proxy.wire"
    ),
    "proxy.watcher": "proxy.config proxy.errors",
    "proxy": "",
    "proxy.admin": (
        "proxy.control.access proxy.control.endpoints proxy.control.gate proxy.drain "
        "proxy.drift.endpoints proxy.explorer.endpoint proxy.records.endpoints aiohttp"
    ),
    "proxy.allocator": "",
    "proxy.decoy": (
        "proxy.answers proxy.evidence proxy.flow proxy.inspection proxy.policy proxy.upstream"
    ),
    "detectors.steps": "detectors.sketch numpy",
    "proxy.questions": (
        "proxy.answers proxy.case proxy.errors proxy.forecast proxy.inspection proxy.queries "
        "proxy.tasks proxy.upstream numpy"
    ),
    "proxy.evaluation": "proxy.errors numpy safetensors",
    "proxy.lineage": "pydantic",
    "proxy.explorer": "",
    "proxy.explorer.candidate": "proxy.config proxy.errors pydantic",
    "proxy.explorer.sweep": (
        "detectors.calibration detectors.rule proxy.config proxy.parts proxy.rules numpy torch"
    ),
    "proxy.explorer.explorer": (
        "detectors.calibration detectors.query_history proxy.config proxy.errors "
        "proxy.evaluation proxy.explorer.candidate proxy.explorer.sweep numpy"
    ),
    "proxy.explorer.merging": "",
    "proxy.control": "",
    "proxy.control.access": "proxy.errors",
    "proxy.control.control": (
        "proxy.admin proxy.control.access proxy.control.errors proxy.control.policies "
        "proxy.control.policy_file proxy.control.target proxy.records.watches"
    ),
    "proxy.control.differences": "proxy.config",
    "proxy.control.edits": "proxy.control.errors yaml",
    "proxy.control.errors": "",
    "proxy.control.hosting": (
        "proxy.config proxy.control.access proxy.control.control proxy.control.listener "
        "proxy.control.policy_file proxy.control.target proxy.identity.admin_tls"
    ),
    "proxy.control.listener": (
        "proxy.config proxy.control.access proxy.control.control proxy.control.service "
        "proxy.errors proxy.health proxy.unpacking grpc grpc_health grpc_reflection"
    ),
    "proxy.control.messages": "proxy.pb proxy.records.snapshot",
    "proxy.control.policies": (
        "proxy.config proxy.control.differences proxy.control.edits proxy.control.errors "
        "proxy.control.policy_file proxy.control.target proxy.errors proxy.tasks "
        "proxy.watcher"
    ),
    "proxy.control.policy_file": (
        "proxy.config proxy.configfile proxy.control.errors proxy.errors proxy.files"
    ),
    "proxy.control.service": (
        "proxy.admin proxy.control.access proxy.control.control proxy.control.edits "
        "proxy.control.errors proxy.control.messages proxy.errors proxy.pb google grpc"
    ),
    "proxy.control.endpoints": "aiohttp",
    "proxy.control.workers": "proxy.control.endpoints aiohttp",
    "proxy.control.listing": "proxy.history.listing proxy.pb rich",
    "proxy.control.target": "proxy.admin proxy.control.endpoints",
    "proxy.shadow": (
        "proxy.defence proxy.device proxy.errors proxy.evidence proxy.flow proxy.inspection "
        "proxy.observer proxy.policy proxy.tasks proxy.upstream"
    ),
    "proxy.shadow_metrics": "proxy.model_metrics",
    "proxy.shadow_policy": "proxy.config proxy.configfile proxy.errors",
    "proxy.records": "",
    "proxy.records.record": "proxy.flow",
    "proxy.records.watches": "proxy.records.record",
    "proxy.records.recent": "proxy.records.record",
    "proxy.records.sketch": "numpy",
    "proxy.records.snapshot": "proxy.records.sketch numpy",
    "proxy.records.reservoir": (
        "proxy.flow proxy.records.kept proxy.records.record proxy.records.sketch numpy"
    ),
    "proxy.records.thumbnails": "PIL numpy ~torch",
    "proxy.records.records": (
        "proxy.config proxy.flow proxy.records.kept proxy.records.recent proxy.records.record "
        "proxy.records.reservoir proxy.records.sketch proxy.records.snapshot "
        "proxy.records.thumbnails proxy.records.watches proxy.tasks ~torch"
    ),
    "proxy.records.endpoints": (
        "proxy.records.record proxy.records.snapshot proxy.records.watches proxy.tasks aiohttp"
    ),
    "proxy.records.workers": (
        "proxy.records.endpoints proxy.records.record proxy.records.snapshot "
        "proxy.records.watches proxy.tasks aiohttp"
    ),
    "proxy.console": "",
    "proxy.console.api": (
        "proxy.console.answers proxy.console.following proxy.console.overview "
        "proxy.control.access proxy.control.control aiohttp pydantic"
    ),
    "proxy.console.routes": ("proxy.console.api proxy.console.files proxy.control.control aiohttp"),
    "proxy.console.answers": "proxy.control.errors proxy.errors aiohttp pydantic",
    "proxy.console.files": "aiohttp",
    "proxy.console.overview": "prometheus_client",
    "proxy.console.following": "proxy.console.answers proxy.control.errors aiohttp",
    "proxy.explorer.endpoint": "proxy.errors proxy.records.snapshot aiohttp",
    "proxy.explorer.workers": (
        "proxy.errors proxy.explorer.endpoint proxy.explorer.merging aiohttp"
    ),
    "proxy.explorer.desk": (
        "proxy.defences proxy.errors proxy.explorer.explorer proxy.records.kept "
        "proxy.records.records proxy.records.snapshot"
    ),
    "proxy.control.client": "proxy.errors proxy.history.listing proxy.pb google grpc",
    "proxy.records.kept": "proxy.flow proxy.records.record proxy.records.snapshot numpy",
    "proxy.control.gate": (
        "proxy.control.access proxy.control.endpoints proxy.drift.endpoints "
        "proxy.explorer.endpoint aiohttp"
    ),
    "proxy.drift.settings": "pydantic",
    "proxy.drift.state": "proxy.drift.settings",
    "proxy.drift.leniency": "proxy.drift.state proxy.flow",
    "proxy.probe": (
        "google grpc grpc_health +proxy.identity.upstream_tls ~proxy.identity.settings"
    ),
    "proxy.calibration_age": "proxy.config proxy.model_metrics",
    "detectors.drift_inputs": "detectors.photometry purifiers.base torch",
    "detectors.drift_reference": (
        "detectors.calibration detectors.drift_inputs detectors.rule numpy torch"
    ),
    "detectors.drift_sketch": "detectors.drift_reference numpy",
    "detectors.drift_test": "detectors.drift_reference detectors.drift_sketch numpy",
    "proxy.drift.batch": "proxy.flow numpy",
    "proxy.drift.panes": (
        "detectors.drift_reference detectors.drift_sketch detectors.drift_test "
        "proxy.drift.batch numpy"
    ),
    "proxy.drift.signals": (
        "detectors.base detectors.drift_inputs detectors.drift_reference detectors.rule "
        "proxy.cascade proxy.config"
    ),
    "proxy.drift.gauges": "proxy.drift.state prometheus_client",
    "proxy.drift.population": (
        "detectors.drift_reference detectors.drift_sketch detectors.drift_test "
        "proxy.drift.batch proxy.drift.gauges proxy.drift.panes proxy.drift.settings "
        "proxy.drift.state proxy.flow"
    ),
    "proxy.drift.watch": (
        "detectors.rule proxy.defence proxy.defences proxy.drift.gauges "
        "proxy.drift.population proxy.drift.settings proxy.drift.signals proxy.drift.state "
        "proxy.drift.telling"
    ),
    "proxy.drift.endpoints": "proxy.drift.siblings aiohttp",
    "proxy.drift.siblings": "aiohttp",
    "proxy.drift.workers": "proxy.drift.endpoints proxy.drift.siblings proxy.drift.state",
    "proxy.drift": "",
    "proxy.tracing": "",
    "proxy.tracing.settings": "pydantic",
    "proxy.tracing.context": "proxy.upstream opentelemetry",
    "proxy.tracing.sampling": "opentelemetry",
    "proxy.tracing.exporting": "opentelemetry",
    "proxy.tracing.attributes": "proxy.flow proxy.rpc",
    "proxy.tracing.trace": (
        "proxy.errors proxy.flow proxy.rpc proxy.status proxy.tracing.attributes "
        "proxy.tracing.context proxy.upstream opentelemetry"
    ),
    "proxy.tracing.tracing": (
        "proxy.errors proxy.flow proxy.rpc proxy.tracing.attributes proxy.tracing.context "
        "proxy.tracing.exporting proxy.tracing.sampling proxy.tracing.settings "
        "proxy.tracing.trace proxy.upstream grpc opentelemetry"
    ),
    "proxy.drain": "",
    "proxy.metrics_listener": "proxy.admin proxy.errors aiohttp",
    "proxy.drift.thrift": "",
    "proxy.unread": "proxy.errors proxy.pb google",
    "proxy.unpacking": "proxy.errors grpc",
    "proxy.image_files": "proxy.errors",
    "proxy.pacing": "",
    "proxy.limits": "",
    "proxy.limits.settings": "pydantic",
    "proxy.limits.limiter": "proxy.errors proxy.limits.settings proxy.rpc",
    "proxy.inflow": "",
    "proxy.inflow.settings": "pydantic",
    "proxy.inflow.waiting": "proxy.errors grpc",
    "proxy.inflow.memory": "proxy.inflow.untaken proxy.inflow.waiting",
    "proxy.inflow.descriptors": "",
    "proxy.audit_chain": "",
    "proxy.audit_line": "proxy.flow",
    "proxy.audit_verify": "proxy.audit_chain proxy.errors",
    "proxy.identity.settings": "pydantic",
    "proxy.identity.certificate": "proxy.errors proxy.identity.settings",
    "proxy.identity.rotation": (
        "proxy.errors proxy.identity.certificate proxy.identity.settings grpc"
    ),
    "proxy.identity.upstream_tls": "proxy.identity.certificate proxy.identity.settings grpc",
    "proxy.identity.principal": "proxy.errors",
    "proxy.identity.admin_tls": (
        "proxy.errors proxy.identity.certificate proxy.identity.rotation proxy.identity.settings"
    ),
    "proxy.identity": "",
    "proxy.capture": "",
    "proxy.capture.settings": "pydantic",
    "proxy.capture.metrics": "prometheus_client",
    "proxy.capture.files": "proxy.audit_line proxy.flow proxy.records.record",
    "proxy.capture.spool": "proxy.errors",
    "proxy.capture.capturer": (
        "proxy.capture.files proxy.capture.metrics proxy.capture.settings proxy.capture.spool "
        "proxy.flow proxy.keyfile proxy.records.record proxy.records.thumbnails ~torch"
    ),
    "proxy.drift.telling": "proxy.drift.panes proxy.drift.population proxy.drift.state",
    "proxy.capture.replay": (
        "proxy.batcher proxy.budget proxy.capture.files proxy.config proxy.defences "
        "proxy.device proxy.errors proxy.evidence proxy.flow proxy.history.history "
        "proxy.inspection proxy.metrics proxy.policy proxy.reader proxy.tasks proxy.upstream"
    ),
    "proxy.log": "proxy.errors",
    "proxy.inflow.sockets": "",
    "proxy.inflow.untaken": "",
    "proxy.case": "proxy.flow numpy ~proxy.cascade ~proxy.history.fingerprints ~torch",
    "proxy.config": (
        "proxy.capture.settings proxy.drift.settings proxy.identity.settings "
        "proxy.inflow.settings proxy.limits.settings proxy.tracing.settings pydantic"
    ),
    "proxy.errors": "",
    "proxy.flow": "~proxy.errors ~numpy ~torch",
    "proxy.health": "grpc grpc_health",
    "proxy.rpc": "",
    "proxy.tasks": "",
    # detectors: evidence to scores, scores to thresholds; nothing but tensor maths
    "detectors": (
        "detectors.band_residual detectors.base detectors.chroma detectors.denoised_view "
        "detectors.denoiser_residual detectors.energy detectors.ensemble detectors.entropy "
        "detectors.feature_squeezing detectors.flat_noise detectors.high_frequency "
        "detectors.jpeg_view detectors.lid detectors.mahalanobis "
        "detectors.margin detectors.mirror_view detectors.nearest_neighbours "
        "detectors.noise_stability detectors.patch detectors.purified_view "
        "detectors.query_history detectors.residual "
        "detectors.residual_cnn detectors.srm detectors.strip detectors.surrogate "
        "detectors.vector_autoencoder detectors.vector_mahalanobis "
        "detectors.vector_neighbours purifiers.plugins purifiers.registry"
    ),
    "detectors.calibration": (
        "detectors.fusion detectors.rule detectors.scored_groups detectors.secrecy torch"
    ),
    "detectors.rule": "detectors.binomial detectors.fusion detectors.secrecy torch",
    "detectors.scored_groups": "detectors.rule torch",
    "detectors.secrecy": "torch",
    "detectors.benign": (
        "detectors.benign_vectors detectors.benign_waveforms purifiers purifiers.base torch"
    ),
    "detectors.benign_sequences": (
        "detectors.base detectors.benign detectors.benign_cameras detectors.benign_clients "
        "detectors.benign_edits detectors.benign_motion detectors.dice torch"
    ),
    "detectors.benign_cameras": (
        "detectors.benign detectors.benign_motion detectors.dice detectors.glyphs "
        "detectors.photometry detectors.scenes torch"
    ),
    "detectors.benign_clients": (
        "detectors.benign detectors.benign_edits detectors.dice detectors.glyphs "
        "detectors.photometry detectors.scenes torch"
    ),
    "detectors.benign_edits": (
        "detectors.benign detectors.dice detectors.glyphs detectors.photometry detectors.scenes "
        "torch"
    ),
    "detectors.benign_motion": "detectors.dice detectors.photometry detectors.scenes torch",
    "detectors.photometry": "detectors.benign detectors.dice torch",
    "detectors.scenes": "detectors.dice torch",
    "detectors.glyphs": "detectors.dice torch",
    "detectors.dice": "torch",
    "detectors.benign_vectors": "detectors.standard purifiers.quantise torch",
    "detectors.benign_waveforms": "torch",
    "detectors.band_residual": "detectors.base detectors.tails purifiers.base torch",
    "detectors.vector_autoencoder": (
        "detectors.base detectors.covariance detectors.principal detectors.standard "
        "purifiers.base torch"
    ),
    "detectors.vector_mahalanobis": (
        "detectors.base detectors.covariance detectors.row_features detectors.tails "
        "purifiers.base torch"
    ),
    "detectors.vector_neighbours": (
        "detectors.base detectors.covariance detectors.row_features purifiers.base torch"
    ),
    "detectors.row_features": "detectors.principal detectors.standard torch",
    "detectors.principal": "detectors.base torch",
    "detectors.standard": "detectors.base torch",
    "detectors.covariance": "torch",
    "detectors.denoiser_residual": (
        "detectors.base detectors.tails purifiers.denoiser purifiers.learned purifiers.pieces torch"
    ),
    "detectors.energy": "detectors.answers detectors.base purifiers.base torch",
    "detectors.denoised_view": "detectors.views",
    "detectors.ensemble": ("detectors.base detectors.tails detectors.views purifiers.base torch"),
    "detectors.entropy": "detectors.answers detectors.base purifiers.base torch",
    "detectors.feature_squeezing": "detectors.views purifiers.base",
    "detectors.jpeg_view": "detectors.views",
    "detectors.mirror_view": "detectors.views",
    "detectors.noise_stability": "detectors.answers detectors.base purifiers torch",
    "detectors.purified_view": "detectors.base detectors.views purifiers purifiers.base",
    "detectors.strip": "detectors.answers detectors.base purifiers torch",
    "detectors.surrogate": (
        "detectors.base detectors.surrogate_network detectors.tails detectors.views torch"
    ),
    "detectors.mahalanobis": "detectors.answers detectors.base detectors.surrogate_network torch",
    "detectors.nearest_neighbours": (
        "detectors.answers detectors.base detectors.neighbours detectors.surrogate_network torch"
    ),
    "detectors.lid": (
        "detectors.answers detectors.base detectors.neighbours detectors.surrogate_network torch"
    ),
    "detectors.surrogate_network": "detectors.answers detectors.base purifiers.learned torch",
    "detectors.neighbours": "torch",
    "detectors.views": "detectors.answers detectors.base detectors.tails purifiers torch",
    "detectors.fusion": "detectors.tails numpy torch",
    "detectors.margin": "detectors.answers detectors.base purifiers.base torch",
    "detectors.residual_cnn": "detectors.base purifiers.learned torch",
    "detectors.query_history": "detectors.base detectors.chains torch",
    "detectors.chains": "detectors.sketch detectors.steps numpy",
    "detectors.digest": "detectors.salted torch",
    "detectors.sketch": "torch",
    "detectors.content_fingerprint": "detectors.base detectors.salted torch",
    "detectors.perceptual_fingerprint": "detectors.base detectors.salted torch",
    "detectors.salted": "numpy torch",
    "detectors.residual": "detectors.bands detectors.base detectors.gaussians detectors.maps torch",
    "detectors.srm": (
        "detectors.bands detectors.base detectors.differences detectors.gaussians detectors.maps "
        "torch"
    ),
    "detectors.chroma": "detectors.bands detectors.base detectors.maps torch",
    "detectors.flat_noise": "detectors.bands detectors.base detectors.maps torch",
    "detectors.high_frequency": "detectors.bands detectors.base detectors.maps torch",
    "detectors.patch": (
        "detectors.base detectors.differences detectors.maps purifiers.localise torch"
    ),
    "detectors.differences": "detectors.bands detectors.maps numpy torch",
    "detectors.bands": "detectors.maps torch",
    "detectors.answers": "detectors.base numpy torch",
    "detectors.gaussians": "detectors.base torch",
    "detectors.tails": "detectors.base numpy torch",
    "detectors.base": "detectors.maps purifiers.base torch",
    "detectors.maps": "torch",
    "detectors.binomial": "",
    # purifiers: images to images; nothing but tensor maths
    "purifiers": (
        "purifiers.autoencoder purifiers.base purifiers.bit_depth purifiers.chain "
        "purifiers.denoiser purifiers.guided_denoiser purifiers.jpeg purifiers.median "
        "purifiers.mirror purifiers.noise purifiers.non_local_means purifiers.patch_suppression "
        "purifiers.plugins "
        "purifiers.quantise purifiers.registry purifiers.resize_pad purifiers.smooth purifiers.tv "
        "purifiers.wavelet"
    ),
    "purifiers.autoencoder": (
        "purifiers.base purifiers.denoiser purifiers.learned purifiers.networks purifiers.pieces "
        "torch"
    ),
    "purifiers.bit_depth": "purifiers.base torch",
    "purifiers.chain": "purifiers.base torch",
    "purifiers.denoiser": (
        "purifiers.base purifiers.learned purifiers.networks purifiers.pieces torch"
    ),
    "purifiers.guided_denoiser": (
        "purifiers.base purifiers.learned purifiers.networks purifiers.pieces torch"
    ),
    "purifiers.jpeg": "purifiers.base PIL numpy torch",
    "purifiers.median": "purifiers.base purifiers.pieces torch",
    "purifiers.mirror": "purifiers.base torch",
    "purifiers.noise": "purifiers.base torch",
    "purifiers.resize_pad": "purifiers.base torch",
    "purifiers.aggregate": "purifiers.base torch",
    "purifiers.non_local_means": "purifiers.base purifiers.opponent torch",
    "purifiers.patch_suppression": "purifiers.base purifiers.localise torch",
    "purifiers.localise": "numpy torch",
    "purifiers.opponent": "torch",
    "purifiers.pieces": "torch",
    "purifiers.tv": "purifiers.base purifiers.opponent purifiers.pieces torch",
    "purifiers.wavelet": "purifiers.base purifiers.opponent purifiers.pieces torch",
    "purifiers.learned": "torch",
    "purifiers.networks": "torch",
    "purifiers.base": "torch",
    "purifiers.quantise": "purifiers.base torch",
    "purifiers.smooth": "purifiers.base torch",
    "purifiers.registry": "purifiers.plugins",
    "purifiers.plugins": "purifiers.base",
}

# Third-party packages that only these modules may load, in whichever way.
ONLY = {
    "torch": {
        *(
            "proxy.artifacts",
            "proxy.cascade",
            "proxy.codec",
            "proxy.devices",
            "proxy.engine",
            "proxy.explorer.sweep",
            "proxy.history.fingerprints",
            "proxy.memory_ladder",
            "proxy.panel",
            "proxy.purification",
            "proxy.rules",
            "proxy.scoring",
            "proxy.tensors",
            "proxy.vectors",
        ),
        *("proxy.waveforms", "proxy.weights"),
    },
    "grpc": {
        *("proxy.server", "proxy.service", "proxy.status", "proxy.stream", "proxy.upstream"),
        *("proxy.health", "proxy.probe", "proxy.reflection", "proxy.unpacking"),
        *("proxy.control.client", "proxy.control.listener", "proxy.control.service"),
        *("proxy.tracing.tracing", "proxy.inflow.waiting"),
        *("proxy.identity.rotation", "proxy.identity.upstream_tls"),
    },
    "opentelemetry": {
        *("proxy.tracing.context", "proxy.tracing.exporting", "proxy.tracing.sampling"),
        *("proxy.tracing.trace", "proxy.tracing.tracing"),
    },
    "grpc_health": {
        *("proxy.control.listener", "proxy.health", "proxy.probe", "proxy.reflection"),
        "proxy.server",
    },
    "grpc_reflection": {"proxy.control.listener", "proxy.reflection"},
    "prometheus_client": {
        *("proxy.drift.gauges", "proxy.metrics", "proxy.model_metrics"),
        "proxy.capture.metrics",
        "proxy.console.overview",  # reads a scrape
    },
    "aiohttp": {
        *("proxy.admin", "proxy.supervisor", "proxy.metrics_listener"),
        *("proxy.console.answers", "proxy.console.api", "proxy.console.files"),
        *("proxy.console.following", "proxy.console.routes"),
        *("proxy.control.endpoints", "proxy.control.gate", "proxy.control.workers"),
        *("proxy.explorer.endpoint", "proxy.explorer.workers"),
        *("proxy.records.endpoints", "proxy.records.workers"),
        *("proxy.drift.endpoints", "proxy.drift.siblings"),
    },
    "yaml": {"proxy.configfile", "proxy.control.edits"},
    "PIL": {"proxy.images", "proxy.records.thumbnails"},
    "redis": {
        *("proxy.history.access", "proxy.history.link", "proxy.history.lookups"),
        "proxy.history.write_behind",
    },
}

# What tensor maths has no business with: other processes, clocks, files, threads.
IMPURE = {
    *("asyncio", "concurrent", "datetime", "io", "logging", "multiprocessing", "os", "pathlib"),
    *("pickle", "shutil", "socket", "subprocess", "sys", "tempfile", "threading", "time"),
}

# Code of other people that tensor maths may call all the same: libjpeg, from memory to memory.
PURE_ENOUGH = {"purifiers.jpeg": {"PIL", "io"}}

# Only here may an import wait inside a function: the command line, which must start at once, the
# place that loads torch when a model is to be scored, and what an optional package is needed for.
LAZY = {"proxy.commands", "proxy.defences", "proxy.probe", "proxy.server", "tuning.supervise"}

# Sources whose tests are in another file than their mirror.
TESTED_IN = {
    "detectors.steps": "tests/detectors/test_chains.py",
    "tuning.demo.digits": "tests/tuning/demo/test_story.py",
    "tuning.demo.picture": "tests/tuning/demo/test_story.py",
    "tuning.demo.policy": "tests/tuning/demo/test_story.py",
    "tuning.demo.table": "tests/tuning/demo/test_story.py",
    "tuning.demo.sidecar": "tests/tuning/demo/test_story.py",
    "tuning.evaluate.page_detection": "tests/tuning/evaluate/test_page.py",
    "tuning.evaluate.page_service": "tests/tuning/evaluate/test_page.py",
    "tuning.evaluate.titles": "tests/tuning/evaluate/test_conclusion.py",
    "tuning.card.background": "tests/tuning/card/test_write.py",
    "tuning.card.content": "tests/tuning/card/test_write.py",
    "tuning.card.state": "tests/tuning/card/test_write.py",
    "tuning.page.canvas": "tests/tuning/page/test_plots.py",
    "tuning.demo.traffic": "tests/tuning/demo/test_story.py",
    "tuning.evaluate.adversaries": "tests/tuning/evaluate/test_attacks.py",
    "tuning.evaluate.attackers": "tests/loadtests/query_attacks/test_attackers.py",
    "tuning.live_report": "tests/tuning/test_live.py",
    "tuning.evaluate.attempt": "tests/loadtests/query_attacks/test_attempt.py",
    "tuning.evaluate.confrontation": "tests/tuning/evaluate/test_adaptive.py",
    "tuning.evaluate.endpoint": "tests/tuning/evaluate/test_run.py",
    "tuning.evaluate.knowing": "tests/tuning/evaluate/test_run.py",
    "tuning.evaluate.pictures": "tests/tuning/evaluate/test_run.py",
    "tuning.evaluate.queries": "tests/tuning/evaluate/test_run.py",
    "tuning.evaluate.recording": "tests/tuning/evaluate/test_run.py",
    "tuning.evaluate.samples": "tests/tuning/evaluate/test_run.py",
    "tuning.evaluate.serving": "tests/tuning/evaluate/test_run.py",
    "tuning.evaluate.sizes": "tests/tuning/evaluate/test_run.py",
    "tuning.evaluate.subject": "tests/tuning/evaluate/test_run.py",
    "tuning.evaluate.surrogate": "tests/tuning/evaluate/test_run.py",
    "tuning.evaluate.tables": "tests/tuning/evaluate/test_run.py",
    "tuning.evaluate.network": "tests/tuning/evaluate/test_run.py",
    "tuning.evaluate.wanted": "tests/tuning/evaluate/test_run.py",
    "tuning.evaluate.oracle": "tests/loadtests/query_attacks/test_attempt.py",
    "tuning.evaluate.targets": "tests/tuning/evaluate/test_adaptive.py",
    "tuning.capacity_picture": "tests/tuning/test_capacity.py",
    "tuning.search.account": "tests/tuning/test_tune.py",
    "tuning.search.basis": "tests/tuning/test_tune.py",
    "tuning.search.measure": "tests/tuning/test_tune.py",
    "tuning.search.palette": "tests/tuning/test_tune.py",
    "tuning.search.picture": "tests/tuning/search/test_shown.py",
    "proxy.__main__": "tests/proxy/test_cli.py",
    **{
        f"proxy.commands.{path.stem}": "tests/proxy/test_cli.py"
        for path in (ROOT / "proxy/commands").glob("*.py")
    },
    "proxy.explorer.workers": "tests/proxy/explorer/test_endpoint.py",
    "proxy.history.store": "tests/proxy/history/test_local.py",
    "proxy.history.access": "tests/proxy/history/test_link.py",
    "proxy.history.memory_file": "tests/proxy/history/test_memory.py",
    "proxy.history.keyspace": "tests/proxy/history/test_shared.py",
    "proxy.history.lookups": "tests/proxy/history/test_shared.py",
    "proxy.history.write_behind": "tests/proxy/history/test_shared.py",
    "proxy.control.errors": "tests/proxy/control/test_control.py",
    "proxy.control.endpoints": "tests/proxy/control/test_supervised.py",
    "proxy.control.workers": "tests/proxy/control/test_supervised.py",
    "proxy.control.listing": "tests/proxy/control/test_client.py",
    "proxy.control.target": "tests/proxy/control/test_control.py",
    "proxy.control.hosting": "tests/proxy/control/test_service.py",
    "proxy.control.listener": "tests/proxy/control/test_service.py",
    "proxy.control.messages": "tests/proxy/control/test_service.py",
    "purifiers.base": "tests/purifiers/test_registry.py",
    "purifiers.chain": "tests/purifiers/test_registry.py",
    "purifiers.learned": "tests/tuning/test_train.py",
    "detectors.rule": "tests/detectors/test_calibration.py",
    "detectors.scored_groups": "tests/detectors/test_calibration.py",
    "detectors.benign_cameras": "tests/detectors/test_benign_sequences.py",
    "detectors.benign_clients": "tests/detectors/test_benign_sequences.py",
    "detectors.benign_edits": "tests/detectors/test_benign_sequences.py",
    "detectors.benign_motion": "tests/detectors/test_benign_sequences.py",
    "detectors.dice": "tests/detectors/test_benign_sequences.py",
    "detectors.glyphs": "tests/detectors/test_scenes.py",
}

BANNED_NAMES = {"utils", "util", "helpers", "helper", "common", "core", "manager"}


def sources() -> dict[str, Path]:
    """Module name -> file, for every module written by hand; a package goes by its own name."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        if not {"pb", "model"} & set(path.parts)  # generated; run by Triton, not by us
    }


def imports(tree: ast.AST, mark: str = "") -> Iterator[str]:
    """Every imported name with its mark; `from package import module` counts as the module."""
    for node in ast.iter_child_nodes(tree):
        here = mark
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            here = "+"
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            here = "~"
        elif isinstance(node, ast.Import):
            yield from (here + alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (here + _module(f"{node.module}.{alias.name}") for alias in node.names)
        yield from imports(node, here)


def _module(name: str) -> str:
    if name.partition(".")[0] not in PACKAGES:
        return name
    if name.startswith("proxy.pb."):
        return "proxy.pb"
    is_module = (ROOT / name.replace(".", "/")).with_suffix(".py").exists()
    return name if is_module else name.rpartition(".")[0]


def edges(path: Path) -> set[str]:
    """What a file imports, but for the standard library and the version in `proxy` itself."""
    found = set()
    for name in imports(ast.parse(path.read_text())):
        bare = name.lstrip("+~")
        top = bare.partition(".")[0]
        if top not in sys.stdlib_module_names and bare != "proxy":
            found.add(name if top in PACKAGES else name.replace(bare, top))
    return found


@pytest.mark.parametrize("module", sorted(sources().keys() | TABLE.keys()))
def test_imports_are_those_of_the_table(module: str) -> None:
    assert module in TABLE, f"a new module: give {module} its line in the table"
    assert module in sources(), f"{module} is gone: remove its line"
    found, allowed = edges(sources()[module]), set(TABLE[module].split())
    assert not found - allowed, f"{module} imports what the table does not allow"
    assert not allowed - found, f"the table allows {module} more than it uses"


def test_there_is_an_order() -> None:
    graph = {m: {e.lstrip("+") for e in uses.split() if e[0] != "~"} for m, uses in TABLE.items()}
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError


@pytest.mark.parametrize("package", ONLY)
def test_third_party_packages_stay_where_they_belong(package: str) -> None:
    users = {
        module
        for module, uses in TABLE.items()
        if package in uses.replace("+", "").split() and module.partition(".")[0] == "proxy"
    }
    assert users <= ONLY[package]


@pytest.mark.parametrize("module", [m for m in sources() if m.startswith(("detec", "puri"))])
def test_detectors_and_purifiers_are_pure_tensor_maths(module: str) -> None:
    for name in imports(ast.parse(sources()[module].read_text())):
        top = name.lstrip("+~").partition(".")[0]
        if top in PURE_ENOUGH.get(module, ()):
            continue
        assert top not in IMPURE
        assert top not in ("proxy", "tuning", *(ONLY.keys() - {"torch"}))
        assert not (module.startswith("purifiers") and top == "detectors")


def test_only_the_command_line_knows_tuning() -> None:
    users = {m for m, uses in TABLE.items() if "tuning" in uses and not m.startswith("tuning")}
    assert all(m.startswith("proxy.commands.") for m in users)
    assert all(e[0] == "+" for m in users for e in TABLE[m].split() if "tuning" in e)


def test_late_imports_have_a_reason() -> None:
    late = {m for m, uses in TABLE.items() if "+" in uses and not m.startswith("tuning")}
    assert {"proxy.commands" if m.startswith("proxy.commands.") else m for m in late} <= LAZY


def test_a_pass_through_never_loads_torch() -> None:
    code = "import proxy.server, sys; print('torch' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert run.stdout.strip() == "False"


@pytest.mark.parametrize("module", [m for m, p in sources().items() if p.stem != "__init__"])
def test_every_source_has_its_test_file(module: str) -> None:
    package, _, name = module.rpartition(".")
    mirror = TESTED_IN.get(module, f"tests/{package.replace('.', '/')}/test_{name}.py")
    assert (ROOT / mirror).is_file(), f"{mirror} is missing"


def test_names_say_what_a_module_is() -> None:
    for package in (*PACKAGES, "loadtests", "tests"):
        named = {path.stem for path in (ROOT / package).rglob("*") if path.suffix in ("", ".py")}
        assert not named & BANNED_NAMES


def test_nothing_is_mocked() -> None:
    for path in (ROOT / "tests").rglob("*.py"):
        tree = ast.parse(path.read_text())
        names = {name.lstrip("+~") for name in imports(tree)}
        assert not {name for name in names if name.startswith("unittest.mock")}, path
