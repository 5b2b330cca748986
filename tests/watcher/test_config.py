import os
import re
from operator import attrgetter
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
import yaml

from sr_engine import headers, models, protocol, runtimes
from watcher.config import check_folders, default_text, load
from watcher.errors import ConfigError, EnvironmentFault
from watcher.sections import Config, Device, Engine, Limits, Output, Retry
from watcher.workshop import Workshop


def written(tmp_path: Path, text: str | bytes) -> str:
    path = tmp_path / "config.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def refusal(tmp_path: Path, text: str | bytes, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path, text), environ)
    assert caught.value.exit_code == 2
    return caught.value.message


LISTS = ("on_event", "warm")  # of sections, none by default


def sections() -> list[str]:
    return [field.name for field in msgspec.structs.fields(Config) if field.name not in ("executor", *LISTS)]


# The default text


def test_the_default_file_says_exactly_the_defaults() -> None:
    tree = yaml.safe_load(default_text())
    expected = msgspec.to_builtins(Config())
    assert [tree[name] for name in LISTS] == [list(expected[name]) for name in LISTS] == [[], []]
    assert list(tree) == list(expected) == ["executor", *sections(), *LISTS]
    assert tree["executor"] == expected["executor"]
    for section in sections():
        assert list(tree[section]) == list(expected[section]), f"{section}: the same keys in the same order"
        for key, value in tree[section].items():
            default = expected[section][key]
            assert value == (list(default) if isinstance(default, tuple) else default), f"{section}.{key}"
            assert isinstance(value, bool) == isinstance(expected[section][key], bool)


def test_each_key_of_the_default_file_has_a_comment() -> None:
    lines = [line for line in default_text().splitlines() if re.match(r" *\w+:", line)]
    keys = sum(len(msgspec.to_builtins(Config())[section]) for section in sections())
    assert len([line for line in lines if line.startswith("  ")]) == keys
    for line in lines:
        if line.startswith("  "):
            assert re.search(r"# \S", line), f"no comment: {line}"


def test_the_default_file_loads_as_the_defaults(tmp_path: Path) -> None:
    config = load(written(tmp_path, default_text()), {})
    assert config.engine.model in ("edsr-lite-x3", "edsr-x3")  # what "auto" means here
    engine = msgspec.structs.replace(config.engine, model="auto")
    assert msgspec.structs.replace(config, folders=Config().folders, engine=engine) == Config()
    assert config.folders.inbox == str(tmp_path / "inbox")
    assert config.folders.state == str(tmp_path / ".dropscale")


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "window:\nwatch:\n", "null\n"])
def test_an_empty_file_or_section_means_the_defaults(tmp_path: Path, text: str) -> None:
    assert load(written(tmp_path, text), {}).window == Config().window


# What is refused


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("windo:\n  quiet_seconds: 1\n", ["windo: unknown key", "did you mean window?"]),
        ("window:\n  quiet_secs: 1\n", ["window.quiet_secs: unknown key", "did you mean quiet_seconds?"]),
        ("window:\n  xyz: 1\n", ["window.xyz: unknown key", "allowed are quiet_seconds, max_seconds"]),
        ("7: 8\n", ["7: unknown key"]),
        ("window:\n  max_files: many\n", ["window.max_files", "'many'", "a whole number"]),
        ("window:\n  max_files: 0\n", ["window.max_files", "0 is not allowed", "from 1 to"]),
        ("window:\n  max_files: 2.5\n", ["window.max_files", "2.5"]),
        ("window:\n  max_files: true\n", ["window.max_files", "True"]),
        ("window:\n  max_files:\n", ["window.max_files", "None"]),
        ("window: 5\n", ["window: 5 is not allowed", "a section"]),
        ("window: [1]\n", ["window: [1] is not allowed"]),
        ("watch:\n  backend: kqueue\n", ["watch.backend", "'kqueue'", "auto, native, polling"]),
        ("watch:\n  recursive: 1\n", ["watch.recursive", "true or false"]),
        ("watch:\n  ignore: '*.bak'\n", ["watch.ignore", "a list of patterns"]),
        ("watch:\n  ignore: [1]\n", ["watch.ignore", "a list of patterns"]),
        ("watch:\n  settle_seconds: 0\n", ["watch.settle_seconds", "greater than 0"]),
        ("watch:\n  settle_seconds: true\n", ["watch.settle_seconds", "True"]),
        ("window:\n  quiet_seconds: -1\n", ["window.quiet_seconds", "-1"]),
        ("window:\n  quiet_seconds: .nan\n", ["window.quiet_seconds", "nan"]),
        ("window:\n  quiet_seconds: .inf\n", ["window.quiet_seconds", "inf"]),
        ("window:\n  quiet_seconds: 1.0e+30\n", ["window.quiet_seconds", "1e+30"]),
        ("watch:\n  rescan_seconds: .inf\n", ["watch.rescan_seconds", "inf"]),
        ("watch:\n  settle_seconds: .nan\n", ["watch.settle_seconds", "nan"]),
        ("retry:\n  first_seconds: -.inf\n", ["retry.first_seconds", "-inf"]),
        ("output:\n  format: psd\n", ["output.format", "'psd'", "webp, tiff, bmp, avif, heic, jpeg2000, gif"]),
        ("output:\n  avif_quality: 101\n", ["output.avif_quality", "from 1 to 100"]),
        ("engine:\n  runtime: cuda\n", ["engine.runtime", "'cuda'", "one of auto, opencv, openvino, onnx"]),
        ("engine:\n  device: tpu\n", ["engine.device", "'tpu'", "npu, cuda, tensorrt", "with a number: cuda:1"]),
        ("engine:\n  device: 'cuda:'\n", ["engine.device", "'cuda:'"]),
        ('engine:\n  device: "cuda:1\\n"\n', ["engine.device"]),
        ("engine:\n  device: 1\n", ["engine.device", "1 is not allowed"]),
        ("engine:\n  precision: int8\n", ["engine.precision", "'int8'", "one of auto, fp32, fp16, bf16"]),
        ("limits:\n  megapixels: 0\n", ["limits.megapixels", "a number greater than 0"]),
        ("limits:\n  side: 0\n", ["limits.side", "1 or more"]),
        ("limits:\n  file_megabytes: 2048\n", ["limits.file_megabytes", "from 1 to 2047"]),
        ("limits:\n  memory_megabytes: -1\n", ["limits.memory_megabytes", "0 or more"]),
        ("limits:\n  pixels: 9\n", ["limits.pixels: unknown key"]),
        ("output:\n  jpeg_quality: 101\n", ["output.jpeg_quality", "from 1 to 100"]),
        ("output:\n  webp_quality: 102\n", ["output.webp_quality", "from 1 to 101"]),
        ("output:\n  png_compression: -1\n", ["output.png_compression", "from 0 to 9"]),
        ("engine:\n  command: sleep 5\n", ["engine.command", "a list"]),
        ("engine:\n  model: ''\n", ["engine.model", "not empty"]),
        ("engine:\n  attempts: 0\n", ["engine.attempts"]),
        ("folders:\n  inbox: ''\n", ["folders.inbox", "not empty"]),
        ("folders:\n  inbox: 5\n", ["folders.inbox", "5"]),
        ('folders:\n  inbox: "in\\0box"\n', ["folders.inbox"]),
    ],
)
def test_a_wrong_value_is_told_with_its_key_and_what_is_allowed(tmp_path: Path, text: str, told: list[str]) -> None:
    message = refusal(tmp_path, text)
    for part in [str(tmp_path / "config.yaml"), *told]:
        assert part in message


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    message = refusal(tmp_path, "windo: 1\nwatch:\n  backend: x\noutput:\n  jpeg_quality: 0\n")
    assert all(part in message for part in ("windo", "watch.backend", "output.jpeg_quality"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("- a\n- list\n", "expected keys"),
        ("just words\n", "expected keys"),
        ("window: {quiet_seconds: 1\n", "is not YAML"),
        ("window:\n\tquiet_seconds: 1\n", "is not YAML"),
        (b"window: \xff\xfe\n", "is not YAML"),
        (b"\x00\x01\x02", "is not YAML"),
        ("!!python/object/apply:os.system ['true']\n", "is not YAML"),
        ("? [a, b]\n: 1\n", "is not YAML"),
    ],
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str | bytes, told: str) -> None:
    message = refusal(tmp_path, text)
    assert told in message and str(tmp_path / "config.yaml") in message


def test_a_missing_or_unreadable_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no") as caught:
        load(str(tmp_path / "absent.yaml"), {})
    assert "dropscale init" in caught.value.remedy
    with pytest.raises(ConfigError, match="cannot read"):
        load(str(tmp_path), {})


@pytest.mark.parametrize("pattern", ["", "!", "/", "[z-a].png"])
def test_a_bad_ignore_pattern_is_told_before_anything_is_watched(tmp_path: Path, pattern: str) -> None:
    message = refusal(tmp_path, yaml.safe_dump({"watch": {"ignore": ["*.bak", pattern]}}))
    assert "watch.ignore" in message and f'"{pattern}"' in message


def test_good_ignore_patterns_are_taken(tmp_path: Path) -> None:
    text = yaml.safe_dump({"watch": {"ignore": ["*.bak", "drafts/", "drafts/*.png", "!~*.jpg", "[a-z]*"]}})
    assert load(written(tmp_path, text), {}).watch.ignore[1] == "drafts/"


# Folders


@pytest.mark.parametrize(
    ("folders", "told"),
    [
        ({"outbox": "inbox/out"}, "folders.outbox: {root}/inbox/out lies inside folders.inbox"),
        ({"inbox": "outbox/in"}, "folders.inbox: {root}/outbox/in lies inside folders.outbox"),
        ({"archive": "inbox"}, "is the same folder as"),
        ({"failed": "archive/../inbox/x"}, "lies inside folders.inbox"),
        ({"state": "inbox/.dropscale"}, "folders.state: {root}/inbox/.dropscale lies inside folders.inbox"),
        ({"inbox": "."}, "lies inside folders.inbox"),
        ({"archive": "link"}, "is the same folder as"),
        ({"archive": "link/deeper"}, "lies inside folders.inbox"),
    ],
)
def test_folders_that_overlap_are_refused_also_through_links(
    tmp_path: Path, folders: dict[str, str], told: str
) -> None:
    (tmp_path / "inbox").mkdir()
    (tmp_path / "link").symlink_to("inbox")
    assert told.format(root=tmp_path) in refusal(tmp_path, yaml.safe_dump({"folders": folders}))


def test_folders_whose_names_begin_alike_do_not_overlap(tmp_path: Path) -> None:
    folders = {"inbox": "in", "outbox": "in-out", "archive": "in.archive", "failed": "inf"}
    load(written(tmp_path, yaml.safe_dump({"folders": folders})), {})


def test_relative_folders_start_at_the_file_and_home_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folders = load(written(tmp_path, "folders: {inbox: ~/in, outbox: a/b, archive: /abs}\n"), {}).folders
    assert folders.inbox == str(tmp_path / "home" / "in")
    assert folders.outbox == str(tmp_path / "a" / "b")
    assert folders.archive == "/abs"


def test_missing_folders_are_the_machines_fault(tmp_path: Path) -> None:
    config = load(written(tmp_path, ""), {})
    for key in ("inbox", "outbox", "archive", "failed"):
        with pytest.raises(EnvironmentFault, match=f"folders.{key}: .* is not there") as caught:
            check_folders(config.folders)
        assert caught.value.exit_code == 3
        (tmp_path / key).mkdir()
    check_folders(config.folders)
    (tmp_path / "failed").rmdir()
    (tmp_path / "failed").write_bytes(b"a file")
    with pytest.raises(EnvironmentFault, match=r"folders\.failed"):
        check_folders(config.folders)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folders_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    config = load(written(tmp_path, ""), {})
    for key in ("inbox", "outbox", "archive", "failed"):
        (tmp_path / key).mkdir()
    (tmp_path / "archive").chmod(0o500)
    with pytest.raises(EnvironmentFault, match=r"folders\.archive: .* cannot be written"):
        check_folders(config.folders)


# The environment


@pytest.mark.parametrize(
    ("variable", "value", "key", "expected"),
    [
        ("DROPSCALE_WINDOW__QUIET_SECONDS", "10", "window.quiet_seconds", 10.0),
        ("DROPSCALE_WATCH__IGNORE", '["*.bak", "drafts/"]', "watch.ignore", ("*.bak", "drafts/")),
        ("DROPSCALE_WATCH__RECURSIVE", "false", "watch.recursive", False),
        ("DROPSCALE_ENGINE__MODELS_FOLDER", "/models", "engine.models_folder", "/models"),
        ("DROPSCALE_FOLDERS__INBOX", "/srv/in", "folders.inbox", "/srv/in"),
    ],
)
def test_the_environment_overrides_the_file(tmp_path: Path, variable: str, value: str, key: str, expected: Any) -> None:
    for text in ("", "window: {quiet_seconds: 1}\n", "window:\nwatch:\nengine:\nfolders:\n"):
        environ = {variable: value, "HOME": "/", "DROPSCALE_CONFIG": "not a key"}
        assert attrgetter(key)(load(written(tmp_path, text), environ)) == expected


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("DROPSCALE_WINDOW__QUIET", "1", "window.quiet: unknown key"),
        ("DROPSCALE_NONSENSE", "1", "nonsense: unknown key"),
        ("DROPSCALE_WINDOW__MAX_FILES", "no", "window.max_files"),
        ("DROPSCALE_WINDOW__MAX_FILES", "", "window.max_files"),
        ("DROPSCALE_WINDOW__MAX_FILES", "[1", "DROPSCALE_WINDOW__MAX_FILES"),
        ("DROPSCALE_WINDOW__MAX_FILES__DEEPER", "1", "window.max_files"),
        ("DROPSCALE_WINDOW", "7", "window: 7 is not allowed"),
    ],
)
def test_a_wrong_override_is_told(tmp_path: Path, variable: str, value: str, told: str) -> None:
    assert told in refusal(tmp_path, "window: {max_files: 3}\n", **{variable: value})


# For the engine


def choices(section: type[msgspec.Struct], key: str) -> set[str]:
    """What a key with a choice of words allows."""
    (kind,) = (field.type for field in msgspec.structs.fields(section) if field.name == key)
    return set(get_args(get_args(kind)[0]))


def test_the_words_for_the_engine_are_those_that_it_understands() -> None:
    assert choices(Engine, "runtime") == set(runtimes.NAMES)
    assert choices(Engine, "precision") == set(runtimes.PRECISIONS)
    assert choices(Output, "format") == {"same", *headers.Kind}
    for device in runtimes.DEVICES:
        for number in ("", ":0", ":12"):
            assert msgspec.convert(f"{device}{number}", Device) == f"{device}{number}"
        assert f" {device}," in f" {refusal_of_device()},"


def refusal_of_device() -> str:
    """What the message says is allowed."""
    (meta,) = (part for part in get_args(Device) if isinstance(part, msgspec.Meta))
    return str(meta.description)


def test_limits_and_output_as_the_engine_is_told_them() -> None:
    assert Config().output.wire() == protocol.Output()
    assert Output(format="avif", avif_quality=7).wire() == protocol.Output(format="avif", avif_quality=7)
    default, wanted = protocol.Limits(), Config().limits.wire()
    assert (wanted.pixels, wanted.side, wanted.memory_bytes) == (default.pixels, default.side, default.memory_bytes)
    assert 0 <= default.file_bytes - wanted.file_bytes < 2**20
    small = Limits(megapixels=0.5, side=7, file_megabytes=1, memory_megabytes=3).wire()
    assert small == protocol.Limits(pixels=500_000, side=7, file_bytes=2**20, memory_bytes=3 * 2**20)


def recipe(config: Config) -> str:
    workshop = object.__new__(Workshop)
    object.__setattr__(workshop, "config", config)
    object.__setattr__(workshop, "model", models.find("edsr-lite-x3").model)
    return workshop.recipe


def test_what_makes_a_result_another_one() -> None:
    """What merely makes it faster or slower does not; nor does it matter what else would have been refused."""
    base = Config()
    same = [Engine(), Engine(device="cpu"), Engine(runtime="opencv", threads=3), Engine(precision="auto")]
    assert {recipe(msgspec.structs.replace(base, engine=engine)) for engine in same} == {recipe(base)}
    assert recipe(msgspec.structs.replace(base, limits=Limits(side=7))) == recipe(base)
    others = [
        msgspec.structs.replace(base, engine=Engine(precision="fp32")),
        msgspec.structs.replace(base, engine=Engine(precision="bf16")),
        msgspec.structs.replace(base, output=Output(avif_quality=50)),
    ]
    assert len({recipe(config) for config in (base, *others)}) == 4


def test_waits_double_up_to_the_longest() -> None:
    retry = Retry(first_seconds=10, max_seconds=600)
    assert [retry.delay_seconds(waits) for waits in (0, 1, 2, 5, 6, 7, 10_000)] == [10, 20, 40, 320, 600, 600, 600]
