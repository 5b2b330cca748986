"""What an engine needs to start: libraries and models, and what it says where they are broken, missing or elsewhere."""

import hashlib
import os
import shutil

import pytest

from sr_engine import models
from sr_engine.protocol import Code, Failed, Fault, Ready


def unusable(engine):
    """The one event of an engine that cannot work."""
    failed = engine.hear()
    assert isinstance(failed, Failed)
    assert engine.hear() is None
    assert engine.process.wait(30) == 3
    assert (failed.id, failed.code, failed.fault) == (None, Code.ENGINE_UNUSABLE, Fault.ENVIRONMENT)
    return failed.message


def test_missing_desktop_libraries_name_both_remedies(converse, tmp_path):
    (tmp_path / "cv2.py").write_text(
        'raise ImportError("libGL.so.1: cannot open shared object file: No such file or directory")'
    )
    engine = converse(environment={"PYTHONPATH": os.fspath(tmp_path)})
    message = unusable(engine)
    assert "libGL.so.1" in message
    assert "pip uninstall -y opencv-contrib-python && pip install opencv-contrib-python-headless" in message
    assert "apt-get install libgl1 libglib2.0-0" in message
    assert "Traceback" not in engine.log()


def test_an_opencv_that_is_not_installed_is_named(converse, tmp_path):
    (tmp_path / "cv2.py").write_text("raise ModuleNotFoundError(\"No module named 'cv2'\", name='cv2')")
    message = unusable(converse(environment={"PYTHONPATH": os.fspath(tmp_path)}))
    assert message.startswith("cv2 is not installed: pip install")


def test_an_unexpected_fault_of_a_library_is_told_with_its_traceback(converse, tmp_path):
    (tmp_path / "cv2.py").write_text("raise RuntimeError('surprise')")
    engine = converse(environment={"PYTHONPATH": os.fspath(tmp_path)})
    assert "surprise" in unusable(engine)
    assert "Traceback" in engine.log()


def test_an_unknown_model_is_named(converse):
    message = unusable(converse("--model", "nonsense"))
    assert "nonsense" in message
    assert "edsr-lite-x3" in message


@pytest.fixture
def folder(tmp_path):
    """A copy of the models' folder, its own name not being text where the filesystem allows that."""
    name = os.path.join(os.fsencode(tmp_path), b"models \xe9")
    try:
        os.mkdir(name)
    except OSError:
        name = os.path.join(os.fsencode(tmp_path), b"models")
        os.mkdir(name)
    for file in ("models.yaml", "edsr-lite-x3.onnx"):
        shutil.copyfile(os.path.join(models.bundled_folder(), file), os.path.join(os.fsdecode(name), file))
    return os.fsdecode(name)


def test_the_model_may_be_anywhere(converse, folder):
    heard, code = converse("--models-folder", folder).finish()
    assert isinstance(heard[0], Ready)
    assert code == 0


def test_a_corrupt_model_is_refused(converse, folder):
    with open(os.path.join(folder, "edsr-lite-x3.onnx"), "r+b") as file:
        file.seek(1000)
        file.write(b"\0\1\2\3")
    message = unusable(converse("--models-folder", folder))
    assert "is not the file that the manifest names" in message


def test_a_missing_model_is_refused(converse, folder):
    os.unlink(os.path.join(folder, "edsr-lite-x3.onnx"))
    assert "cannot read the model" in unusable(converse("--models-folder", folder))
    with open(os.path.join(folder, "models.yaml"), "w", encoding="utf-8") as file:
        file.write("models: [")
    assert "models.yaml is broken" in unusable(converse("--models-folder", folder))


def test_a_model_that_is_none_is_refused(converse, folder):
    with open(os.path.join(folder, "edsr-lite-x3.onnx"), "wb") as file:
        file.write(b"nothing of the kind")
    manifest = os.path.join(folder, "models.yaml")
    with open(manifest, encoding="utf-8") as file:
        text = file.read()
    found = hashlib.sha256(b"nothing of the kind").hexdigest()
    known = models.find("edsr-lite-x3", folder).model.sha256
    with open(manifest, "w", encoding="utf-8") as file:
        file.write(text.replace(known, found))
    engine = converse("--models-folder", folder)
    assert "OpenCV cannot load the model edsr-lite-x3.onnx" in unusable(engine)
    assert "Traceback" not in engine.log()
