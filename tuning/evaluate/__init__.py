"""`breakwater evaluate`: what becomes of attacks on a defended model, and of benign images.

`breakwater tune` needs the same images with the scores of more detectors than are configured. The
attacks are kept under `work`, so what `evaluate` has made is not made again, and the reverse:

    from tuning.evaluate.recording import Recording, record, write
    from tuning.evaluate.sizes import FULL, QUICK
    from tuning.evaluate.subject import Subject

    subject = Subject.load(config, name, data, model_file=None, surrogate_file=None,
                           work=out / "work", seed=0, progress=progress)   # fitted as configured
    recording = record(subject, FULL, detectors=..., ways={"jpeg(quality=75)": (jpeg,)},
                       threats=THREATS)

`detectors` are fitted ones (`tuning.fit.calibrate(...).detectors`; default: the configured), `ways`
named purifier chains with their networks (default: the configured one). `recording` has

    detectors   names, the columns of the scores
    ways        names, "none" first
    sets        "ROLE/NAME" -> Scored(scores (N, D) float32, right (N, W) uint8, kept (N,) bool,
                attack, threat, tuned_on, queries), ROLE of benign, unseen, ood, attack

Sample i of every benign set is made from the same image, so halves by index share no image. `kept`
says which of the tried attacks fool the undefended model: only those, and only samples with finite
scores, go into `scores.safetensors`, which `write(path, recording, rule, about)` writes and
`proxy.evaluation.load` reads.
"""
