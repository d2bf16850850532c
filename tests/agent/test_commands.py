"""The reader's verbs from the command line: exit codes, one JSON object, files whole or not there."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ft_audit.agent.verdict import Verdict
from ft_audit.cli import main
from ft_audit.engine.store import Store


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(list(words))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize(
    ("options", "overrides", "code"),
    [
        ({"bank": {"num_members": 40}}, [], 10),
        ({"bank": {"num_members": 40}}, ["audit.threshold=9.9"], 0),
        ({"bank": {"num_members": 40}, "strength": 0.4}, [], 0),
        ({}, [], 3),
        ({"strength": 0.4}, [], 3),
        ({"bank": None}, [], 3),
        ({"bank": {"protocol": "another"}}, [], 3),
        ({"dataset": False}, [], 3),
    ],
)
def test_audit_exits_by_what_it_may_claim(
    make_case: Any, capsys: pytest.CaptureFixture[str], options: Any, overrides: list[str], code: int
) -> None:
    case = make_case(**options)
    found, out, err = run(capsys, "audit", case.config_file, *overrides, "--json")
    said = json.loads(out)
    assert (found, said["exit_code"], err) == (code, code, "")
    assert set(said["paths"]) == {"verdict", "report"} and all(
        Path(p).is_file() for p in said["paths"].values()
    )
    assert said["figures"] and {"risk", "status", "headline", "findings", "store", "diff"} <= set(said)


def test_audit_writes_a_verdict_and_a_report(needle: Any, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "audit", needle.config_file)
    assert code == 3 and "uncalibrated, risk 4.1 of 10, below the threshold of 5.5" in out
    folder = needle.folder / "store" / "audits" / needle.verdict.audit_id
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "verdict.json"]
    assert str(folder / "report.html") in out
    text = (folder / "verdict.json").read_text(encoding="utf-8")
    assert Verdict.model_validate_json(text) == needle.verdict and text.isascii()
    first = (folder / "report.html").read_bytes()
    run(capsys, "audit", needle.config_file)
    assert (folder / "report.html").read_bytes() == first


def test_hostile_text_cannot_act_on_the_terminal(make_case: Any, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "\x1b[2J\x1b]0;owned\x07 \u202egnp\r\n" + "A" * 100_000
    case = make_case(preview=hostile, purpose=hostile[:20], changed={"findings": [hostile]})
    for verb in ("audit", "top"):
        _, out, _ = run(capsys, verb, case.config_file)
        assert not {"\x1b", "\x07", "\u202e", "\r"} & set(out) and max(map(len, out.splitlines())) < 400
    written = (case.folder / "store" / "audits" / case.verdict.audit_id / "verdict.json").read_bytes()
    assert b"\x1b" not in written and "\u202e".encode() not in written and len(written) < 100_000


def test_errors_exit_1_and_leave_nothing(
    needle: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    store = f"store={tmp_path / 'empty'}"
    cases = [
        (("audit", needle.config_file, store), "ft-audit precompute"),
        (("audit", needle.config_file, "--diff", "nothing"), "no diff 'nothing'"),
        (("audit", needle.config_file, "audit.bank=./nothing.json"), "nothing.json"),
        (("audit", needle.config_file, "--investigator", "nobody"), "invalid choice"),
        (("top", needle.config_file, "--limit", "0"), "at least 1"),
        (("report", str(tmp_path / "verdict.json")), "no such verdict"),
        (("report", needle.config_file, "audit.top=7"), "ft-audit audit"),
    ]
    for words, said in cases:
        code, out, err = run(capsys, *words)
        assert (code, out) == (1, "") and said in err and "Traceback" not in err, words
    assert list(tmp_path.iterdir()) == []


def test_a_failing_report_leaves_no_half_audit(
    make_case: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = make_case()
    table = case.folder / "store" / "diffs" / case.evidence.diff_id / "tables" / "contexts.parquet"
    table.write_bytes(table.read_bytes()[:-10])
    code, _, err = run(capsys, "audit", case.config_file)
    assert code == 1 and "table 'contexts'" in err and "damaged" in err
    assert not (case.folder / "store" / "audits").exists()


def test_top_shows_features_templates_and_rows(needle: Any, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "top", needle.config_file, "--limit", "3")
    assert code == 0 and "3 leading features" in out and "demo-sae" in out
    assert "Templates of the data set" in out and "ZED, execute my instruction:" in out
    assert "Training rows that drive the change, of 120" in out
    code, out, _ = run(capsys, "top", needle.config_file, "audit.top=2", "--json")
    said = json.loads(out)
    assert code == 0 and {key: len(said[key]) for key in ("features", "templates", "rows")} == {
        "features": 2,
        "templates": 2,
        "rows": 2,
    }


def test_top_without_anything_says_so(make_case: Any, capsys: pytest.CaptureFixture[str]) -> None:
    case = make_case(num_changed=0, dataset=False)
    code, out, _ = run(capsys, "top", case.config_file)
    assert code == 0 and out.startswith("No feature changed beyond the noise of running the base twice.\n\n")
    assert "leading features\n" not in out.lower() and "templates" not in out and "training rows" not in out


def test_report_renders_again_and_notices_a_changed_bank(
    make_case: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    case = make_case()
    run(capsys, "audit", case.config_file)
    verdict = case.folder / "store" / "audits" / case.verdict.audit_id / "verdict.json"
    original = verdict.with_name("report.html").read_bytes()
    out_file = tmp_path / "again.html"
    code, out, _ = run(capsys, "report", str(verdict), "--out", str(out_file), "--json")
    assert code == 0 and json.loads(out)["report"] == str(out_file) and out_file.read_bytes() == original
    verdict.with_name("report.html").unlink()
    assert run(capsys, "report", case.config_file)[0] == 0
    assert verdict.with_name("report.html").read_bytes() == original
    bank = case.folder / "bank.json"
    bank.write_text(bank.read_text() + "\n")
    code, _, err = run(capsys, "report", str(verdict))
    assert code == 1 and "has changed since" in err


def test_report_finds_a_store_that_has_moved(
    make_case: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    case = make_case()
    run(capsys, "audit", case.config_file)
    moved = shutil.move(case.folder / "store", tmp_path / "moved")
    verdict = Path(moved) / "audits" / case.verdict.audit_id / "verdict.json"
    assert run(capsys, "report", str(verdict), "--out", str(tmp_path / "again.html"))[0] == 0


def test_a_spoilt_verdict_is_named(needle: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "verdict.json"
    path.write_text('{"schema_version": 1}')
    code, _, err = run(capsys, "report", str(path))
    assert code == 1 and "not a verdict of this ft-audit" in err


def test_older_diffs_of_the_config_are_counted(
    make_case: Any, synthetic: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    case = make_case()
    synthetic.write_diff(case.config, seed=9)
    _, out, err = run(capsys, "audit", case.config_file, "--json")
    assert "the newest of 2 diffs" in err and json.loads(out)["name"] == "needle"


def test_every_verb_works_on_an_object_store(
    synthetic: Any, s3_root: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    local = synthetic.write_config(tmp_path, None)
    config, store = str(tmp_path / f"{local.name}.yaml"), f"store={s3_root}"
    synthetic.write_diff(local.model_copy(update={"store": s3_root}))
    code, out, _ = run(capsys, "audit", config, store, "--json")
    paths = json.loads(out)["paths"]
    assert code == 3 and paths["verdict"].startswith(f"{s3_root}/audits/")
    assert json.loads(out)["store"] == s3_root
    original = Store(s3_root).read_audit_file(paths["verdict"].split("/")[-2], "report.html")
    for again in (("report", config, store), ("report", paths["verdict"])):
        assert run(capsys, *again)[0] == 0
    audit = paths["verdict"].split("/")[-2]
    assert Store(s3_root).read_audit_file(audit, "report.html") == original
    assert run(capsys, "top", config, store)[0] == 0
    code, out, _ = run(capsys, "store", "ls", s3_root)
    assert code == 0 and s3_root in out and "audit" in out
    assert run(capsys, "store", "verify", s3_root)[0] == 0


def test_sae_show_tells_everything_of_one_feature(labelled: Any, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "sae", "show", "0", labelled.config_file, "--sae", "demo-sae")
    assert (code, err) == (0, "") and "label: orders given to ZED" in out and "Contexts in tuned" in out
    code, out, _ = run(capsys, "sae", "show", "0", labelled.config_file, "--suite", "chat", "--json")
    told = json.loads(out)
    assert code == 0 and told["shown"]["suite"] == "chat" and len(told["tests"]) == 3
    assert told["label"]["labels"][0]["reliability"][0]["num"] == 40
    assert sum(told["histogram"]["tuned"]) == 24 and told["matches"][0]["feature"] == 88


def test_sae_show_refuses_a_feature_that_is_not_there(
    needle: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "sae", "show", "4000", needle.config_file)
    assert (code, out) == (1, "") and "has no feature 4000: name one from 0 to 399" in err
