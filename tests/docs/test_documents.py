"""What README.md and GUIDE.md show runs as it stands there; what any document names is there."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import click
import pytest

from dist_relu.cli.main import main, program
from dist_relu.runtime.backends.mpi.backend import mpirun_path
from tests.cases import long
from tests.docs.markdown import Block, anchors, blocks, commands, documents, links, spans
from tests.programs import ROOT, run
from tests.ray_clusters import RayCluster

README, GUIDE = ROOT / "README.md", ROOT / "GUIDE.md"
TELL_OF_THE_PAST = {ROOT / "CHANGELOG.md", ROOT / "LOG.md"}
HERE_AND_NOW = [document for document in documents() if document not in TELL_OF_THE_PAST]

SHORTER = {
    "train": ["--epochs", "1"],
    "rl": ["--steps", "512"],
    "analyze training": ["--epochs", "1", "--seeds", "1"],
    "launch": ["--epochs", "1"],
}
"""Options behind those of a command, which make it quick; the last one counts."""


def called(path: Path) -> str:
    return str(path.relative_to(ROOT))


def arguments_of(words: list[str]) -> list[str] | None:
    """The arguments of dist-relu in a command, which may stand behind mpirun and the like; None: there is none."""
    for number, word in enumerate(words):
        if word == "dist-relu":
            return words[number + 1 :]
        if script := re.fullmatch(r"(?:.*/)?scripts/(train|rl|bench)\.py", word):
            return [script[1], *words[number + 1 :]]
    return None


def resolve(arguments: list[str]) -> tuple[str, click.Command, list[str]]:
    """The command that arguments begin with, its name, and the arguments behind it."""
    command: click.Command = program
    names: list[str] = []
    while isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
        name, *arguments = arguments
        assert name in command.commands, f"there is no command {' '.join([*names, name])}"
        command = command.commands[name]
        names.append(name)
    return " ".join(names), command, arguments


def on_one_worker(arguments: list[str]) -> list[str]:
    """The same command on one worker, where it says nothing of workers."""
    _, command, options = resolve(arguments)
    takes_backend = any("--backend" in parameter.opts for parameter in command.params)
    says_where = {"--backend", "--workers"} & set(options)
    return [*arguments, "--backend", "serial"] if takes_backend and not says_where else arguments


def carry_out(words: list[str], folder: Path) -> None:
    """Run a command of a document in `folder`; in this process where it is dist-relu, and neither MPI nor Ray."""
    if words[:2] == ["python", "-c"]:
        exec(words[2], {})
        return
    if words[0] == "make":
        done = run(["make", "--dry-run", *words[1:]], cwd=ROOT)
        assert done.returncode == 0, done.stderr
        return
    arguments = arguments_of(words)
    assert arguments is not None, f"{' '.join(words)} is no command that can be run here"
    arguments = [*arguments, *SHORTER.get(resolve(arguments)[0], [])]
    if words[0] == "mpirun" or "ray" in words or "launch" in words:
        launcher = [mpirun_path(), *words[1:3]] if words[0] == "mpirun" else []
        done = run([*launcher, sys.executable, "-m", "dist_relu", *arguments], cwd=folder)
        assert done.returncode == 0, done.stderr
        return
    try:
        main(on_one_worker(arguments))
    except SystemExit as end:
        raise AssertionError(f"{' '.join(words)} ended with {end.code}") from end


def shell_blocks(document: Path) -> list[Block]:
    """What a document shows to be typed on one machine."""
    return [block for block in blocks(document) if block.language == "sh" and block.runs_here]


def on_every_backend() -> Block:
    """The block of README.md that trains on each of them."""
    (block,) = [block for block in shell_blocks(README) if "--backend ray" in block.text]
    return block


@pytest.mark.parametrize("document", [README, GUIDE], ids=called)
def test_blocks_say_their_language(document: Path) -> None:
    assert {block.language for block in blocks(document)} <= {"python", "sh"}


@pytest.mark.parametrize("document", [README, pytest.param(GUIDE, marks=pytest.mark.long)], ids=called)
def test_python_runs_in_its_order(document: Path, tmp_path: Path) -> None:
    run_python([block for block in blocks(document) if block.runs_here], tmp_path, "-W", "error")


@pytest.mark.chaos
def test_python_that_needs_ray_runs_too(tmp_path: Path, ray_cluster: RayCluster) -> None:
    run_python(blocks(GUIDE), tmp_path, env=ray_cluster.environment)


def run_python(program: list[Block], tmp_path: Path, *options: str, env: dict[str, str] | None = None) -> None:
    """Run the blocks of Python, shortened."""
    text = "\n".join(block.text for block in program if block.language == "python")
    text = text.replace("num_samples=20", "num_samples=2").replace("~/trials", str(tmp_path / "trials"))
    text = re.sub(r"steps=[\d_]+", "steps=512", text).replace("episodes=100", "episodes=2")
    (tmp_path / "program.py").write_text(text, encoding="utf-8")
    done = run([sys.executable, *options, "program.py"], cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "block",
    [*(block for block in shell_blocks(README) if block != on_every_backend()), *long(*shell_blocks(GUIDE))],
)
def test_the_commands_of_a_block_run_in_their_order(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in commands(block.text):
        carry_out(words, tmp_path)


@pytest.mark.long
def test_all_backends_of_the_readme_end_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_cluster: RayCluster
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_ADDRESS", ray_cluster.address)
    digests = set()
    for words in commands(on_every_backend().text):
        carry_out([*words, "--json", "train.json"], tmp_path)
        digests.add(json.loads(Path("train.json").read_text())["params_sha256"])
    assert len(digests) == 1


@pytest.mark.parametrize("document", HERE_AND_NOW, ids=called)
def test_options_exist(document: Path) -> None:
    texts = [*(block.text for block in blocks(document)), *spans(document)]
    for words in (words for text in texts for words in commands(text)):
        arguments = arguments_of(words)
        while arguments:
            name, command, rest = resolve(arguments)
            rest, arguments = (rest[: rest.index("--")], rest[rest.index("--") + 1 :]) if "--" in rest else (rest, None)
            known = {opt for parameter in command.params for opt in [*parameter.opts, *parameter.secondary_opts]}
            options = {word.partition("=")[0] for word in rest if word.startswith("-")}
            assert options <= {*known, "-h", "--help"}, f"dist-relu {name} has no such option"


@pytest.mark.parametrize("document", HERE_AND_NOW, ids=called)
def test_goals_of_make_exist(document: Path) -> None:
    goals = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    texts = [*(block.text for block in blocks(document)), *spans(document)]
    asked = {word for text in texts for words in commands(text) if words[0] == "make" for word in words[1:]}
    assert {word for word in asked if "=" not in word} <= goals  # the others are variables


@pytest.mark.parametrize("document", documents(), ids=called)
def test_links_lead_somewhere(document: Path) -> None:
    for link in links(document):
        if not re.match(r"https?://", link):
            path, _, anchor = link.partition("#")
            target = (document.parent / path) if path else document
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("document", HERE_AND_NOW, ids=called)
def test_files_that_are_named_exist(document: Path) -> None:
    for span in spans(document):
        if re.fullmatch(r"(dist_relu|tests|scripts|cluster|\.github)/[\w./-]+", span):
            assert (ROOT / span).exists(), span
