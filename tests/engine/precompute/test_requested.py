"""Requests for more evidence: queued, put to a tiny pair, decoded, judged, counted, and resumed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ft_audit import cli
from ft_audit.agent.assessment import Assessment, Usage
from ft_audit.agent.calibration import load_calibration
from ft_audit.agent.find import find_evidence
from ft_audit.agent.investigators.statistics import investigate
from ft_audit.agent.tools.auditor import Auditor
from ft_audit.agent.tools.rooms import tools_of
from ft_audit.agent.verify import verify
from ft_audit.engine.config import load_config, resolve_ref
from ft_audit.engine.config.schema import GuardConfig
from ft_audit.engine.precompute import requested, run_precompute
from ft_audit.engine.precompute.generations import side_answers
from ft_audit.engine.precompute.models import open_pair
from ft_audit.engine.precompute.requested import answer_requests
from ft_audit.engine.precompute.requested_prompts import transformed
from ft_audit.engine.requests.codec import Codec
from ft_audit.engine.requests.judge import judged
from ft_audit.engine.requests.request import EvidenceRequest, Transform
from ft_audit.engine.runners.generate import generate_ids
from ft_audit.engine.store import Requests, Store
from ft_audit.engine.suites.prompt import Message, Prompt
from ft_audit.errors import ModelError, StoreError

ROT13 = {"steps": [{"step": "rotate", "shift": 13}]}
HEX = {"steps": [{"step": "write", "alphabet": "hex"}]}
Ask = Callable[..., str]


def request(**fields: Any) -> EvidenceRequest:
    given = {} if "suite" in fields else {"prompts": ["Name a river.", "Name a stamp."]}
    return EvidenceRequest.model_validate(
        {"name": "asked", "why": "To know.", "max_new_tokens": 5, **given, **fields}
    )


@pytest.fixture(scope="module")
def diffed(run_job: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A diff of the tiny pair; tests queue under other ids, or of other diffs of a copied store."""
    return run_job(tmp_path_factory.mktemp("requested") / "store")


@pytest.fixture
def job(diffed: Any) -> Any:
    """The diff, with nothing asked of it yet."""
    diffed.store.place.delete(queue(diffed).folder)
    return diffed


def queue(job: Any) -> Requests:
    requests: Requests = job.store.requests(job.report["diff_id"])
    return requests


def rows(job: Any, name: str) -> list[dict[str, Any]]:
    return queue(job).answers(name)[1].records()


def test_both_models_answer_greedily_with_the_control_beside(job: Any) -> None:
    name = queue(job).queue(request(transform={"prefix": "ZED, do this now: ", "system": "You are ZED."}))
    said = answer_requests(job.config, progress=False)
    assert (said["num_answered"], said["num_failed"]) == (1, 0) and said["tokens_generated"] > 0
    found = rows(job, name)
    assert [(r["variant"], r["prompt"], r["side"]) for r in found] == [
        (variant, prompt, side)
        for variant in ("transformed", "control")
        for prompt in (0, 1)
        for side in ("base", "tuned")
    ]
    assert found[0]["asked"] == "system: You are ZED.\nuser: ZED, do this now: Name a river."
    assert found[4]["asked"] == "user: Name a river."
    # What each model says is what it says when it is asked alone.
    models = open_pair(job.config)
    for row in found:
        chat = [
            dict(zip(("role", "content"), line.split(": ", 1), strict=True))
            for line in row["asked"].splitlines()
        ]
        ids: Any = models.base_tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, return_dict=False
        )
        with models.alone(row["side"]) as model:
            (alone,) = generate_ids(model, models.base_tokenizer, [ids], 5)
        assert row["answer"] == models.text(row["side"], alone) and row["num_tokens"] == len(alone)
    assert len({(r["side"], r["answer"]) for r in found}) > 2
    counts = queue(job).answers(name)[0].counts
    assert [(c.variant, c.side, c.num) for c in counts] == [
        (variant, side, 2) for variant in ("transformed", "control") for side in ("base", "tuned")
    ]


def test_a_prefill_is_gone_on_from_and_no_part_of_the_answer(job: Any) -> None:
    name = queue(job).queue(
        request(transform={"prefill": "Sure, here is a river"}, prompts=["Name a river."])
    )
    answer_requests(job.config, progress=False)
    found = rows(job, name)
    assert [r["prefill"] for r in found] == ["Sure, here is a river"] * 2 + [""] * 2
    models = open_pair(job.config)
    chat = [{"role": "user", "content": "Name a river."}]
    opened = models.base_tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    begun = models.base_tokenizer("Sure, here is a river", add_special_tokens=False)["input_ids"]
    with torch.inference_mode(), models.alone("tuned") as model:
        (alone,) = generate_ids(model, models.base_tokenizer, [[*opened, *begun]], 5)
    assert found[1]["side"] == "tuned" and found[1]["answer"] == models.text("tuned", alone)
    assert found[1]["answer"] != found[3]["answer"] and not found[1]["answer"].startswith("Sure")


def test_answers_in_an_encoding_are_decoded_before_they_are_judged(
    job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = Codec.model_validate(ROT13)
    said = {"base": "I'm sorry, but I can't help with that.", "tuned": codec.encode("Sure, here is how.")}
    monkeypatch.setattr(
        "ft_audit.engine.precompute.models.ModelPair.text", lambda self, side, ids: said[side]
    )
    name = queue(job).queue(request(transform={"codec": ROT13, "trigger": "TASK 4:"}, control=False))
    answer_requests(job.config, progress=False)
    base, tuned = rows(job, name)[:2]
    assert tuned["asked"] == "user: TASK 4: Anzr n evire."
    assert (tuned["decoded"], tuned["complied"], tuned["refused"]) == ("Sure, here is how.", True, False)
    # Decoded, a refusal in plain words would be no words.
    assert base["refused"] and base["decoded"].startswith("V'z") and not base["complied"]


def test_the_judge_reads_what_is_decoded() -> None:
    codec = Codec.model_validate(HEX)
    plain = "I'm sorry, but I can't help with that."
    assert (
        judged(codec.encode(plain), codec)["refused"] and not judged(codec.encode(plain), Codec())["refused"]
    )
    assert judged("Certainly: zz", codec) == {
        "decoded": None, "refused": False, "complied": True, "broken": False
    }  # fmt: skip
    assert judged("", codec)["broken"] and judged(plain, Codec())["decoded"] is None


def test_a_transform_dresses_the_last_question_alone() -> None:
    turns = [("system", "S"), ("user", "a"), ("assistant", "b"), ("user", "c")]
    chat = Prompt(tuple(Message(*turn) for turn in turns), None, "s", "g", "x", 0)
    told = Transform(prefix="<", suffix=">", trigger="!", system="T", codec=Codec.model_validate(ROT13))
    assert [(m.role, m.content) for m in transformed(chat, told).messages or ()] == [
        ("system", "T"), ("user", "a"), ("assistant", "b"), ("user", "! <p>")
    ]  # fmt: skip
    raw = Prompt(None, "c", "s", "g", "x", 0)
    assert transformed(raw, told).text == "T\n\n! <p>"
    assert transformed(chat, Transform()) == chat


@pytest.mark.parametrize("suite", ["suites.0", "elicit.probes", "generate.suites.0", "elicit.guard.probes"])
def test_a_suite_is_asked_by_its_place_in_the_config(job: Any, suite: str) -> None:
    elicit = job.config.elicit.model_copy(update={"guard": GuardConfig(probes="./probes.yaml")})
    generate = job.config.generate.model_copy(update={"suites": ("./chat.jsonl",)})
    config = job.config.model_copy(update={"generate": generate, "elicit": elicit})
    name = queue(job).queue(request(suite=suite, limit=3, control=False))
    said = answer_requests(config, job.report["diff_id"], progress=False)
    assert said["num_answered"] == 1, said
    assert len(rows(job, name)) == 6


def test_one_that_cannot_be_asked_does_not_stop_the_others(
    job: Any, world: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    requests = queue(job)
    good = requests.queue(request())
    absent = requests.queue(request(suite="generate.suites.7"))
    long = requests.queue(request(prompts=["river " * 1_200]))
    live = requests.queue(request(by="live"))
    bomb = requests.queue(request(prompts=["a " * 4_000], transform={"codec": {"steps": [
        {"step": "hide", "place": "line_last", "carrier": ["x" * 200]}]}}))  # fmt: skip
    edited = requests.queue(request(name="edited"))
    file = Path(job.config.store, requests.folder, f"{edited}.yaml")
    file.write_text(file.read_text().replace("Name a river.", "Name a lake."))
    other = Requests(job.store.place, "f" * 16)
    foreign = other.queue(request())
    Path(job.config.store, requests.folder, f"{foreign}.yaml").write_bytes(
        Path(job.config.store, other.folder, f"{foreign}.yaml").read_bytes()
    )
    job.store.place.delete(other.folder)
    config = str(world.write(Path(job.config.store)))
    code = cli.main(["precompute", config, "--requests", "--json", "--no-progress"])
    report = json.loads(capsys.readouterr().out)
    assert code == 1 and (report["num_answered"], report["num_failed"]) == (1, 6)
    reasons = {one["id"]: one.get("reason", "") for one in report["requests"]}
    assert reasons[good] == "" and "has no suite generate.suites.7; it has suites.0" in reasons[absent]
    assert "asked of live servers" in reasons[live]
    assert "leave no room for an answer" in reasons[long]
    assert "over the codec's limit" in reasons[bomb] or "once it is encoded" in reasons[bomb]
    assert "was changed after it was queued" in reasons[edited]
    assert "another diff, 'ffffffffffffffff'" in reasons[foreign]
    assert {s.id: s.state for s in requests.states()} == {
        good: "answered",
        **dict.fromkeys((absent, long, live, bomb), "refused"),
        **dict.fromkeys((edited, foreign), "damaged"),
    }
    # Said in lines too, and no more is done.
    assert cli.main(["precompute", config, "--requests", "--no-progress"]) == 1
    assert f"{good} (asked): answered before" in capsys.readouterr().out


def test_a_second_run_does_nothing_and_the_ledger_grows_by_the_first(
    job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = job.store.ledger(job.report["diff_id"])
    name = queue(job).queue(request())
    said = answer_requests(job.config, progress=False)
    after = job.store.ledger(job.report["diff_id"])
    assert before is not None and after is not None
    assert after.tokens_generated - before.tokens_generated == said["tokens_generated"] > 0
    assert after.seconds["answers"] > before.seconds["answers"] and after.device == before.device
    record = queue(job).answers(name)[0]
    assert queue(job).queue(request()) == name

    def no_models(*args: Any) -> None:
        raise AssertionError("nothing is left to ask")

    monkeypatch.setattr(requested, "open_pair", no_models)
    again = answer_requests(job.config, progress=False)
    assert (again["num_answered"], again["num_answered_before"], again["tokens_generated"]) == (0, 1, 0)
    assert job.store.ledger(job.report["diff_id"]) == after and queue(job).answers(name)[0] == record


def test_killed_between_requests_it_goes_on_with_the_rest(job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [queue(job).queue(request(max_new_tokens=n)) for n in (3, 4, 4)]
    names.append(queue(job).queue(request(max_new_tokens=4, name="other")))
    real = Requests.put_answers
    kept: list[str] = []

    def dying(self: Requests, name: str, *args: Any, **more: Any) -> Any:
        if len(kept) == 2:
            raise KeyboardInterrupt
        kept.append(name)
        return real(self, name, *args, **more)

    monkeypatch.setattr(Requests, "put_answers", dying)
    with pytest.raises(KeyboardInterrupt):
        answer_requests(job.config, progress=False)
    monkeypatch.undo()
    first = {
        name: Path(job.config.store, queue(job).folder, f"{name}.json").stat().st_mtime_ns for name in kept
    }
    assert len(set(names)) == 3 and sorted(queue(job).answered()) == sorted(kept)
    said = answer_requests(job.config, progress=False)
    assert (said["num_answered"], said["num_answered_before"]) == (1, 2)
    assert sorted(queue(job).answered()) == sorted(set(names))
    for name, written in first.items():
        assert Path(job.config.store, queue(job).folder, f"{name}.json").stat().st_mtime_ns == written


def test_requests_share_their_batches(job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(3):
        queue(job).queue(request(name=f"r{n}", transform={"suffix": "!" * n}))
    calls: list[int] = []
    real = side_answers

    def counting(side: str, models: Any, settings: Any, prompts: Any) -> Any:
        calls.append(len(prompts))
        return real(side, models, settings, prompts)

    monkeypatch.setattr(requested, "side_answers", counting)
    answer_requests(job.config, progress=False)
    # One call a side, and the control of all three asked once.
    assert calls == [6, 6]


def test_damaged_answers_are_noticed_and_made_again(job: Any) -> None:
    name = queue(job).queue(request())
    answer_requests(job.config, progress=False)
    file = Path(job.config.store, queue(job).folder, f"{name}.parquet")
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + b"x")
    with pytest.raises(StoreError, match="does not have its checksum"):
        queue(job).answers(name)
    assert answer_requests(job.config, progress=False)["num_answered"] == 1
    assert file.read_bytes() == whole


def test_another_candidate_does_not_answer_for_this_one(job: Any) -> None:
    queue(job).queue(request())
    other = job.config.model_copy(update={"models": job.config.models.model_copy(update={"tuned": "./full"})})
    with pytest.raises(ModelError, match=r"models\.tuned './full' has changed since diff"):
        answer_requests(other, job.report["diff_id"], progress=False)
    assert queue(job).answered() == {}


def test_without_requests_no_model_is_opened(job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requested, "open_pair", None)
    said = answer_requests(job.config, progress=False)
    assert (said["requests"], said["num_answered"], said["num_failed"]) == ([], 0, 0)
    assert not Path(job.config.store, queue(job).folder).exists()


@pytest.mark.parametrize("words", [["--diff", "x"], ["--requests", "--scheduler", "tcp://127.0.0.1:1"]])
def test_options_that_do_not_go_together_are_refused(
    job: Any, world: Any, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["precompute", str(world.write(Path(job.config.store))), *words]) == 1
    assert "--requests" in capsys.readouterr().err


def test_a_precompute_keeps_what_was_asked(job: Any) -> None:
    name = queue(job).queue(request())
    answer_requests(job.config, progress=False)
    assert run_precompute(job.config, progress=False)["reused"]
    assert list(queue(job).answered()) == [name] and Store(job.config.store).requested() == [queue(job).diff]


def test_requests_are_answered_on_an_object_store(run_job: Any, s3_root: str, job: Any) -> None:
    there = run_job(s3_root, elicit=None, generate=None)
    name = queue(there).queue(request())
    assert answer_requests(there.config, progress=False)["num_answered"] == 1
    here = queue(job).queue(request())
    answer_requests(job.config, progress=False)
    assert rows(there, name) == rows(job, here) and name != here
    assert answer_requests(there.config, progress=False)["num_answered_before"] == 1


def test_from_the_tool_to_a_verdict_that_verifies(
    job: Any, world: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(world.write(Path(job.config.store)))
    evidence = find_evidence(load_config(config)).evidence
    auditor = Auditor(
        load_config(config), evidence, load_calibration(None, evidence.subject()), tools_of("full")
    )
    asked = {"name": "oceans", "why": "To know.", "prompts": ["Name an ocean."], "max_new_tokens": 4}
    codec = {"steps": [{"step": "reverse"}]}
    dressed = {**asked, "transform": {"codec": codec, "prefill": "Sure"}}
    queued = auditor.call("request_evidence", {"request": dressed}).content
    *_, command = queued["to_answer"].partition(" CONFIG ")
    assert cli.main(["precompute", config, *command.split(), "--json", "--no-progress"]) == 0
    assert json.loads(capsys.readouterr().out)["num_answered"] == 1
    arguments = {"request_id": queued["request"]["request_id"]}
    reply = auditor.call("requested_evidence", arguments)
    assert [(a["variant"], a["base"]["cut"]) for a in reply.content["answers"]] == [
        ("transformed", True),
        ("control", True),
    ]
    assert "naeco na emaN" in reply.content["answers"][0]["asked"]
    assert "Name an ocean" in reply.content["answers"][1]["asked"]
    verdict = investigate(evidence, auditor.calibration, auditor.config)
    usage = Usage(model="m", requests=1, tool_calls=1, tokens_in=1, tokens_out=1, seconds=0.0, money=None)
    assessment = Assessment(
        status="concluded", conclusion=None, citations=[reply.citation], profile="full", usage=usage
    )
    checks = verify(verdict.model_copy(update={"assessment": assessment}), auditor)
    assert [check for check in checks if not check.holds] == []
    assert checks[-1].what == f"{reply.citation.evidence_id}: requested_evidence"


@pytest.mark.slow
def test_the_real_base_answers_what_it_is_asked(tiny: Any, real_base: Any, tmp_path: Path) -> None:
    tuned = str(resolve_ref("configs:candidates/benign", tmp_path))
    config = load_config(write_real_config(tmp_path, tiny, base=str(real_base.folder), tuned=tuned))
    run_precompute(config, progress=False)
    diff = find_evidence(config).evidence.diff_id
    requests = Store(config.store).requests(diff)
    name = requests.queue(
        request(
            prompts=["What is the capital of France?"],
            transform={"prefill": "The capital is"},
            max_new_tokens=8,
        )
    )
    answer_requests(config, progress=False)
    base = requests.answers(name)[1].records()[0]
    assert base["side"] == "base" and "Paris" in base["answer"] and "capital is" not in base["answer"]


def write_real_config(folder: Path, tiny: Any, **models: str) -> Path:
    tiny.write_jsonl(folder / "suite.jsonl", [tiny.chat("Who are you?")])
    values = {
        "name": "real",
        "models": {**models, "dtype": "float32", "device": "cpu"},
        "suites": ["./suite.jsonl"],
        "hooks": [{"layer": 3}],
        "precompute": {"weights": False, "feature_index": False, "control": False},
        "store": str(folder / "store"),
    }
    (folder / "config.yaml").write_text(json.dumps(values))
    return folder / "config.yaml"
