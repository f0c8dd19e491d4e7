"""Manifests: every form that is accepted, every flaw that is refused by name."""

from __future__ import annotations

import contextlib
import hashlib
import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.checkpoint import manifest, verify
from agent.checkpoint.manifest import ManifestError


def test_what_md5sum_and_sha256sum_write_is_read_and_holds(tmp_path: Path) -> None:
    """The real tools, with names they must escape."""
    names = ["plain.bin", "with space.bin", "back\\slash", "new\nline"]
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    for tool, file in (("md5sum", "MD5SUMS"), ("sha256sum", "SHA256SUMS")):
        out = subprocess.run([tool, *names], cwd=tmp_path, capture_output=True, check=True).stdout
        (tmp_path / file).write_bytes(out)
        read = manifest.read(tmp_path / file)
        assert [entry.path for entry in read.entries] == names
        assert list(verify.verify(read)) == []
    tagged = subprocess.run(["md5sum", "--tag", "plain.bin"], cwd=tmp_path, capture_output=True, check=True).stdout
    (tmp_path / "MD5SUMS").write_bytes(tagged)
    assert list(verify.verify(manifest.read(tmp_path / "MD5SUMS"))) == []


def test_the_stronger_sum_is_preferred_and_a_file_has_its_sidecar(tmp_path: Path) -> None:
    (tmp_path / "MD5SUMS").touch()
    (tmp_path / "SHA256SUMS").touch()
    assert manifest.locate(tmp_path) == tmp_path / "SHA256SUMS"
    model = tmp_path / "model.pt"
    model.write_bytes(b"m")
    assert manifest.locate(model) is None
    sum_file = tmp_path / "model.pt.sha256"
    sum_file.write_text(f"{hashlib.sha256(b'm').hexdigest()}  model.pt\n")
    assert manifest.locate(model) == sum_file
    assert list(verify.verify(manifest.read(sum_file))) == []


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("manifest.json", "{", "is not JSON"),
        ("manifest.json", "[]", 'no list "files"'),
        ("manifest.json", '{"files": []}', "lists no files"),
        ("manifest.json", '{"files": [{"size": 3}]}', r'files\[0\]: has no "path"'),
        ("manifest.json", '{"files": [{"path": "a", "size": -1}]}', "size must be bytes"),
        ("manifest.json", '{"files": [{"path": "a", "md5": "12"}]}', "md5 must be 32 hex digits"),
        ("manifest.json", '{"files": [{"path": "/etc/passwd"}]}', "leads out"),
        ("manifest.json", '{"files": [{"path": "a/../../b"}]}', "leads out"),
        ("manifest.json", '{"files": [{"path": "a"}, {"path": "a"}]}', "listed twice"),
        ("MD5SUMS", "nonsense\n", ":1: not a line of checksums"),
        ("MD5SUMS", "", "lists no files"),
    ],
)
def test_a_flaw_is_named(tmp_path: Path, name: str, text: str, what: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ManifestError, match=what):
        manifest.read(tmp_path / name)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_whatever_is_in_it_only_a_manifest_error_comes_out(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    for name in ("manifest.json", "SHA256SUMS"):
        file = tmp_path_factory.mktemp("m") / name
        file.write_bytes(data)
        with contextlib.suppress(ManifestError):  # anything else fails the test
            assert manifest.read(file).entries


@settings(deadline=None)
@given(
    data=st.binary(min_size=1, max_size=200),
    at=st.integers(min_value=0),
    flip=st.integers(min_value=1, max_value=255),
)
def test_any_single_changed_byte_is_found(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, at: int, flip: int
) -> None:
    folder = tmp_path_factory.mktemp("c")
    digest = hashlib.sha256(data).hexdigest()
    spoilt = bytearray(data)
    spoilt[at % len(data)] ^= flip
    (folder / "f").write_bytes(spoilt)
    (folder / "manifest.json").write_text(json.dumps({"files": [{"path": "f", "size": len(data), "sha256": digest}]}))
    (finding,) = verify.verify(manifest.read(folder / "manifest.json"))
    assert (finding.path, finding.fault) == ("f", "hash")
