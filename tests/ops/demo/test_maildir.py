"""The Maildir: whole messages in new, octet by octet, and nothing after a failure."""

from pathlib import Path

import pytest

from smtpproxy.ops.demo.maildir import Maildir


def test_message_is_kept_octet_by_octet_under_its_own_name(tmp_path: Path) -> None:
    maildir = Maildir(tmp_path / "some" / "where")
    messages = [b"a\r\n\xff\x00", b"", b"a\r\n\xff\x00"]
    files = [maildir.deliver(message) for message in messages]
    assert [file.read_bytes() for file in files] == messages
    assert {file.name for file in files} == maildir.names()
    assert len(maildir.names()) == len(messages)
    assert [maildir.read(file.name) for file in files] == messages
    assert list((maildir.path / "tmp").iterdir()) == []
    assert (maildir.path / "cur").is_dir()


def test_existing_folder_keeps_its_messages(tmp_path: Path) -> None:
    Maildir(tmp_path).deliver(b"old")
    maildir = Maildir(tmp_path)
    maildir.deliver(b"new")
    assert sorted(maildir.read(name) for name in maildir.names()) == [b"new", b"old"]


def test_failure_leaves_nothing_in_tmp(tmp_path: Path) -> None:
    maildir = Maildir(tmp_path)
    (tmp_path / "new").rmdir()
    with pytest.raises(OSError, match="No such file"):
        maildir.deliver(b"x")
    assert list((tmp_path / "tmp").iterdir()) == []
