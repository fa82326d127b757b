"""store_photo_upload: every file of the drive is uploaded, up to date, or named with its reason."""

import os
import socket

import pytest

from tests.faults import call
from tests.objects import kept, snapshot, versions

JPEG, PNG = b"\xff\xd8\xff a picture", b"\x89PNG\r\n\x1a\n a picture"
HERE = "stores/1-x/photos"


def listed(run) -> list[str]:
    """Every file that a list has, as the lists write names: taken, up to date, or rejected."""
    errors = [line.partition("\t")[0] for line in run.lines("error")]
    unchanged = [line[2:] for line in run.lines("combined") if line.startswith("= ")]
    return sorted(run.lines("success") + unchanged + errors)


def reasons(run) -> dict[str, str]:
    return dict(line.split("\t") for line in run.lines("error"))


def test_only_what_is_missing_or_of_another_size_goes_up_and_nothing_is_deleted(any_syncs):
    syncs = any_syncs
    syncs.fill(syncs.destination, f"{HERE}/1.jpg", f"{HERE}/2.jpg", data=b"\xff\xd8\xff A PICTURE")
    syncs.fill(syncs.destination, f"{HERE}/3.jpg", f"{HERE}/9.jpg", "x.txt", data=b"was")
    before = snapshot(syncs.destination)
    for number in range(1, 5):
        syncs.file(f"{HERE}/{number}.jpg", JPEG)
    os.utime(syncs.folder / HERE / "1.jpg", (2**32, 2**32))  # the time does not count
    dry = syncs.upload(mode="dryrun")
    assert (dry.state, dry.lines("new"), dry.lines("modified")) == (
        "success",
        [f"{HERE}/4.jpg"],
        [f"{HERE}/3.jpg"],
    )
    assert snapshot(syncs.destination) == before
    run = syncs.upload(mode="sync")
    assert (run.state, run.ends) == ("success", {f"{HERE}/{n}.jpg": "done" for n in (3, 4)})
    now = snapshot(syncs.destination)
    assert now.keys() == before.keys() | {f"{HERE}/4.jpg"}
    assert (now.pop(f"{HERE}/3.jpg").data, now.pop(f"{HERE}/4.jpg").data) == (JPEG, JPEG)
    assert now.items() <= before.items()
    assert [kept(syncs.trash, key).data for key in versions(syncs.trash)] == [b"was"]
    assert syncs.upload().ends == {}


def test_to_delete_is_no_parameter_of_it(syncs):
    syncs.file(f"{HERE}/0.jpg")
    run = syncs.upload(mode="sync", delete=True)
    assert run.state == "failed"
    assert "Unknown parameter delete" in run.said


NAMES = {
    f"{HERE}/0.jpg": "",
    f"{HERE}/0.JPG": "its extension is not .jpg (lower case counts)",
    f"{HERE}/0.png": "its extension is not .jpg",
    f"{HERE}/0.png.png": "its extension is not .jpg",
    f"{HERE}/IMG-20150724-WA0000.jpg": "its name is not a number",
    "stores/1-x/menus/.picasaoriginals/1.jpg": "it is not stores/(store)/(photos|menus)/(number)",
    "stores/1-x/1.jpg": "it is not stores/(store)/(photos|menus)/(number)",
    "stores/1-x/films/1.jpg": "its folder is neither photos nor menus",
    "chains/1-x/menus/1.jpg": "it is not below stores/",
}


def test_names_that_the_rule_does_not_take_are_listed_with_their_reason(syncs):
    for name in (*NAMES, f"{HERE}/desktop.ini"):
        syncs.file(name)
    run = syncs.upload()
    assert run.state == "success"
    assert list(versions(syncs.destination)) == run.lines("success") == [f"{HERE}/0.jpg"]
    said = reasons(run)
    assert listed(run) == sorted(NAMES)
    assert [said[name] for name in said if not said[name].startswith(NAMES[name])] == []
    for name in NAMES:
        (syncs.folder / name).unlink()
    syncs.file("chains/1-x/menus/1.jpg")
    syncs.file(f"{HERE}/0.png", PNG)
    syncs.file(f"{HERE}/1.jpg", PNG)
    run = syncs.upload(naming_chains=True, naming_png=True)
    assert run.lines("success") == ["chains/1-x/menus/1.jpg", f"{HERE}/0.png", f"{HERE}/1.jpg"]
    assert run.lines("error") == []
    types = {key: found.content_type for key, found in snapshot(syncs.destination).items()}
    assert types == {  # by content, not by name
        "chains/1-x/menus/1.jpg": "image/jpeg",
        f"{HERE}/0.jpg": "image/jpeg",
        f"{HERE}/0.png": "image/png",
        f"{HERE}/1.jpg": "image/png",
    }


BROKEN = "line\nbreak\t.jpg"
CARRIED = [
    BROKEN,
    "a b.jpg",
    " .jpg",
    "quote'\"`.jpg",
    "100%.jpg",
    "%2F%00.jpg",
    "a+b&c=d?e#f.jpg",
    "back\\slash.jpg",
    "<xml>.jpg",
    "caf\u00e9.jpg",
    "cafe\u0301.jpg",
    "\u5199\u771f/\U0001f5bc.jpg",
    "-rf/~/*?[a].jpg",
    ".hidden/.jpg",
]


def hostile(syncs) -> dict[str, str]:
    """Files of which none can go up, and why."""
    folder = syncs.folder
    syncs.file(os.fsdecode(b"latin-\xe9.jpg"))
    (folder / "link.jpg").symlink_to(folder / "a b.jpg")
    (folder / "dangling.jpg").symlink_to(folder / "nowhere.jpg")
    (folder / "out").symlink_to("/")
    (folder / "loop").symlink_to(folder)
    (folder / "self").symlink_to(folder / "self")
    os.mkfifo(folder / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.open(folder, os.O_RDONLY)  # a socket's own path may not be long
        server.bind(f"/proc/self/fd/{here}/socket.jpg")
        os.close(here)
    long = "/".join(["d" * 250] * 5) + "/1.jpg"
    syncs.file(long)
    link, other = "it is a symbolic link, which is not followed", "it is no regular file"
    links = ("link.jpg", "dangling.jpg", "out", "loop", "self")
    return {
        r"latin-\udce9.jpg": "its name is not UTF-8",
        **dict.fromkeys(links, link),
        **dict.fromkeys(("pipe.jpg", "socket.jpg"), other),
        long: "its name has 1,260 bytes, and S3 takes 1,024",
    }


def test_whatever_a_file_is_called_or_is_it_goes_up_or_is_named_with_the_reason(any_syncs):
    syncs, carried = any_syncs, set(CARRIED)
    for name in CARRIED:
        syncs.file(name, name.encode())
    rejected = hostile(syncs)
    run = syncs.upload(naming="none")
    if run.state == "failed":  # moto takes line breaks out of its addresses
        carried.remove(BROKEN)
        assert [key for key in run.ends if run.ends[key] != "done"] == [BROKEN]
        assert "does not exist" in run.reason(BROKEN)
    uploaded = {key: found.data for key, found in snapshot(syncs.destination).items()}
    assert {name: uploaded.get(name) for name in carried} == {
        name: name.encode() for name in carried
    }
    assert reasons(run) == rejected
    written = [name.replace(BROKEN, r"line\nbreak\t.jpg") for name in CARRIED]
    assert listed(run) == sorted([*written, *rejected])
    (syncs.folder / BROKEN).unlink()
    again = syncs.upload(naming="none")
    assert (again.state, again.ends) == ("success", {})
    assert reasons(again) == rejected


def test_files_that_vanish_or_change_fail_alone_and_are_not_seen_half(any_syncs):
    syncs = any_syncs
    files = [syncs.file(f"{HERE}/{number}.jpg", JPEG) for number in range(5)]
    large = syncs.file(f"{HERE}/5.jpg", JPEG + bytes(20 * 2**20))
    changed, gone, link, _, _ = files

    def meddle(first):  # who is the first, Airflow decides
        nonlocal changed, gone, link
        changed, gone, link, _ = (file for file in files if file.name != first.key[-5:])
        changed.write_bytes(JPEG + b"more")
        gone.unlink()
        link.unlink()
        link.symlink_to("/etc/hostname")

    def append(_):
        with large.open("ab") as file:
            file.write(b"more")

    with syncs.faults() as proxy:
        proxy.on("PutObject", call(meddle), times=1, bucket=syncs.destination.name)
        proxy.on("UploadPart", call(append), times=1, bucket=syncs.destination.name)
        run = syncs.upload(images_per_task=1)
    assert run.state == "failed"
    failed = {key[-5:]: run.reason(key) for key in run.ends if run.ends[key] == "failed"}
    assert failed.keys() == {changed.name, gone.name, link.name, large.name}
    assert "changed since it was listed" in failed[changed.name]
    assert "cannot be read (No such file or directory)" in failed[gone.name]
    assert "cannot be read (Too many levels of symbolic links)" in failed[link.name]
    assert "changed since it was listed" in failed[large.name]
    assert set(versions(syncs.destination)) == run.ends.keys() - {f"{HERE}/{n}" for n in failed}
    begun, ended = (
        proxy.requests.count(f"{what}MultipartUpload", bucket=syncs.destination.name)
        for what in ("Create", "Abort")
    )
    assert (begun, ended) == (1, 1)
    link.unlink()
    assert syncs.upload().state == "success"
    assert {key[-5:]: found.data for key, found in snapshot(syncs.destination).items()} == {
        file.name: file.read_bytes() for file in (syncs.folder / HERE).iterdir()
    }


def test_an_approved_plan_of_a_drive_is_carried_out_exactly(syncs):
    syncs.file(f"{HERE}/0.jpg")
    approval = syncs.upload(mode="dryrun").approval()
    syncs.file(f"{HERE}/1.jpg")
    run = syncs.upload(approved_plan=approval)
    assert (run.state, run.ends) == ("success", {f"{HERE}/0.jpg": "done"})


def test_a_parameter_cannot_lead_out_of_the_drive(syncs):
    run = syncs.upload(folder="../../etc")
    assert (run.state, run.ends) == ("failed", {})
    assert "does not lie in" in run.said
    with pytest.raises(ValueError, match="folder"):  # by Airflow, before there is a run
        syncs.upload(folder="/etc")
