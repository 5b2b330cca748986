import time

import pytest

from watcher.files.ignore import DEFAULT_EXTENSIONS, FILES, FOLDERS, RULES, IgnoreRules, Rule

# Names that each rule of the table is there for, as the programs write them.
EXAMPLES: dict[str, list[str]] = {
    ".dropscale*": [".dropscale", ".dropscale-stage", ".dropscale.lock"],
    ".syncthing.*": [".syncthing.photo.jpg.tmp", ".syncthing.photo.jpg"],
    "~syncthing~*": ["~syncthing~photo.jpg.tmp", "~syncthing~photo.jpg"],
    r"*.sync-conflict-<\d{8}-\d{6}>*": [
        "photo.sync-conflict-20240131-235959-ABCDEF7.jpg",
        "photo.sync-conflict-20240131-235959.JPG",
    ],
    ".stversions": [".stversions"],
    ".stfolder": [".stfolder"],
    ".stignore": [".stignore"],
    r"*(conflicted copy *<\d{4}-\d\d-\d\d \d{6}>)*": [
        "photo (conflicted copy 2024-01-31 235959).jpg",
        "photo (conflicted copy Ann Lee 2024-01-31 235959).jpg",
    ],
    r"*(case clash from <\d{4}-\d\d-\d\d \d{6}>)*": ["Photo (case clash from 2024-01-31 235959).jpg"],
    r"*_conflict-<\d{8}-\d{6}>*": ["photo_conflict-20240131-235959.jpg"],
    r"*_conflict_*-<\d{8}-\d{6}>*": ["photo_conflict_ann-20240131-235959.jpg"],
    ".sync_*.db*": [".sync_0123456789ab.db", ".sync_0123456789ab.db-wal"],
    "._sync_*.db*": ["._sync_0123456789ab.db", "._sync_0123456789ab.db-shm"],
    ".csync_journal.db*": [".csync_journal.db", ".csync_journal.db-journal"],
    ".owncloudsync.log*": [".owncloudsync.log", ".owncloudsync.log.1"],
    "*.octransferid*.part": ["photo.jpg.ocTransferId1234567890.part"],
    r".*.~<[0-9a-f]+>": [".photo.jpg.~1a2b3c4d"],
    "@eadir": ["@eaDir", "@EADIR"],
    "synophoto_thumb_*": ["SYNOPHOTO_THUMB_XL.jpg", "SYNOPHOTO_THUMB_M.png"],
    "*@synoeastream": ["photo.jpg@SynoEAStream"],
    "*@synoresource": ["photo.jpg@SynoResource"],
    "@tmp": ["@tmp"],
    ".synologyworkingdirectory": [".SynologyWorkingDirectory"],
    "#recycle": ["#recycle"],
    "#snapshot": ["#snapshot"],
    "@sharebin": ["@sharebin"],
    r"*_*-<\d\d-\d{4}(\d\d)?-\d{4}>_conflict*": [
        "photo_ADMIN_Jul-16-180037-2026_Conflict.jpg",
        "photo_my-pc_Jan-03-0901-2013_Conflict_2.jpg",
    ],
    r"*_*-<\d\d-\d{4}(\d\d)?-\d{4}>_caseconflict*": [
        "photo_CLIENT_Jan-03-0901-2013_CaseConflict_1.jpg",
        "photo_CLIENT_oct.-05-085858-2026_CaseConflict.png",
    ],
    ".@__thumb": [".@__thumb"],
    "@recycle": ["@Recycle"],
    "@recently-snapshot": ["@Recently-Snapshot"],
    "*.!sync": ["photo.jpg.!sync"],
    "*.syncpart": [".SyncPart", "photo.jpg.SyncPart"],
    "*.synctemp": [".SyncTemp", "photo.jpg.SyncTemp"],
    "*.syncold": [".SyncOld", "photo.jpg.SyncOld"],
    ".syncid": [".SyncID"],
    ".syncignore": [".SyncIgnore"],
    ".syncarchive": [".SyncArchive"],
    ".sync": [".sync"],
    "*.rsls": ["photo.jpg.rsls"],
    "*.conflict": ["photo.jpg.Conflict"],
    ".dropbox": [".dropbox"],
    ".dropbox.attr": [".dropbox.attr"],
    ".dropbox.cache": [".dropbox.cache"],
    "*(*conflicted copy*)*": [
        "photo (Ann's conflicted copy 2024-01-31).jpg",
        "photo (Ann's MacBook's conflicted copy).jpg",
        "photo (Ann\u2019s conflicted copy 2024-01-31 (1)).jpg",
        "photo (conflicted copy 2024-01-31).jpg",
    ],
    ".tmp.drivedownload": [".tmp.drivedownload"],
    ".tmp.driveupload": [".tmp.driveupload"],
    "*.drivepart": ["photo.jpg.drivepart"],
    "*.insyncdl": ["photo.jpg.insyncdl"],
    ".*.icloud": [".photo.jpg.icloud"],
    "._*": ["._photo.jpg", "._.DS_Store"],
    ".ds_store": [".DS_Store"],
    ".appledouble": [".AppleDouble"],
    ".appledb": [".AppleDB"],
    ".temporaryitems": [".TemporaryItems"],
    ".trashes": [".Trashes"],
    ".spotlight-v100": [".Spotlight-V100"],
    ".fseventsd": [".fseventsd"],
    ".apdisk": [".apdisk"],
    "icon\r": ["Icon\r"],
    "__macosx": ["__MACOSX"],
    ".smbdelete*": [".smbdeleteAAA7c3f9b.4"],
    ".nfs*": [".nfs000000000012ab3400000001"],
    ".fuse_hidden*": [".fuse_hidden0000001200000001"],
    ".trash-*": [".Trash-1000"],
    "lost+found": ["lost+found"],
    "thumbs.db": ["Thumbs.db", "thumbs.db"],
    "desktop.ini": ["desktop.ini", "Desktop.ini"],
    "*:zone.identifier": ["photo.jpg:Zone.Identifier"],
    "$recycle.bin": ["$RECYCLE.BIN", "$Recycle.Bin"],
    "system volume information": ["System Volume Information"],
    ".pending-*": [".pending-1706745599-photo.jpg"],
    ".trashed-*": [".trashed-1706745599-photo.jpg"],
    "*.part": ["photo.jpg.part"],
    "*.partial": ["photo.jpg.1a2b3c4d.partial"],
    "*.filepart": ["photo.jpg.filepart"],
    "*.crdownload": ["photo.jpg.crdownload", "Unconfirmed 123456.crdownload"],
    "*.opdownload": ["photo.jpg.opdownload"],
    "*.download": ["photo.jpg.download"],
    "*.aria2": ["photo.jpg.aria2"],
    ".in.*.": [".in.photo.jpg.", ".in.4711.photo.jpg."],
    ".pureftpd-upload.*": [".pureftpd-upload.65ba1c2f.15.1a2b.3c4d5e6f"],
    "*.unison": ["photo.jpg.unison"],
    ".~tmp~": [".~tmp~"],
    ".rsync-partial": [".rsync-partial"],
    "~$*": ["~$album.docx", "~$photo.jpg"],
    ".~lock.*": [".~lock.album.odt#"],
    ".*.sw?": [".notes.txt.swp", ".photo.jpg.swo"],
    "*.kate-swp": ["notes.txt.kate-swp"],
    "*.~*": ["photo.~jpg", "photo.jpg.~1~", "drawing.~tmp.png"],
    "*~": ["photo.jpg~"],
    "*.tmp": ["photo.tmp", "photo.jpg.TMP"],
    "*.temp": ["photo.jpg.temp"],
    "~*": ["~photo.jpg", "~WRD0001.png"],
    ".htaccess": [".htaccess"],
    r".?*.<[a-z0-9]{6}>": [".photo.jpg.Ab12Cd"],
    ".*": [".photo.jpg", ".hidden", ".gitignore"],
}

ORDINARY = """
IMG_0001.JPG
photo (1).jpg
photo - Copy.jpeg
photo - Copy (2).png
a~b.png
a~1.jpg
LONGNA~1.JPG
conflict.jpg
_conflict-.jpg
my_conflict-zone.jpg
war_conflict-1939.jpg
photo_conflict-20240131.jpg
sync-conflict.jpg
photo.sync-conflict-.jpg
conflicted copy.jpg
the conflicted copy of Ann.png
case clash.png
photo-LAPTOP.jpg
photo-DESKTOP-AB12CD.jpg
tmp.png
temp.jpg
part.png
download.webp
photo.part.jpg
photo.tmp.png
Thumbs.db.jpg
desktop.ini.png
Icon.png
eaDir.jpg
@photo.jpg
#1.jpg
#recycle.jpg
$RECYCLE.jpg
$100 bill.png
in.flames.jpg
lost+found.jpg
unison.tiff
sync.jpg
dropbox.bmp
dropscale.jpg
nfs.jpg
DS_Store.jpg
photo 20240131-235959.jpg
photo~20240131-235959.jpg
trip_Jan-03-0901-2013.jpg
trip_Jan-03_Conflict.jpg
100%.jpg
a.b.c.d.jpg
photo..jpg
a'b"c.jpg
[1] photo.jpg
{photo}.jfif
photo!.jpe
-photo.tif
 photo .jpg
照片.jpg
照片 (副本).JPG
写真~夏~.png
\uff5e夏\uff5e.png
фото.webp
צילום.jpg
naïve café.jpeg
😀.png
""".strip("\n").split("\n")


@pytest.fixture(scope="module")
def rules() -> IgnoreRules:
    return IgnoreRules()


def test_every_rule_has_an_example() -> None:
    assert set(EXAMPLES) == {rule.pattern for rule in RULES}


@pytest.mark.parametrize(
    ("rule", "name"), [pytest.param(rule, name, id=name) for rule in RULES for name in EXAMPLES[rule.pattern]]
)
def test_each_rule_is_the_one_that_speaks_for_its_names(rules: IgnoreRules, rule: Rule, name: str) -> None:
    applies, reason = rule.applies, rule.reason
    if FILES in applies:
        assert rules.reason(name) == reason
        assert rules.reason(f"2024/summer/{name}") == reason
        assert rules.reason(name.upper()) == reason
        assert rules.reason(name.lower()) == reason
    if FOLDERS in applies:
        assert rules.folder_reason(name) == reason
        assert rules.folder_reason(f"2024/{name}/more") == reason
        assert rules.reason(f"{name}/photo.jpg") == reason
        assert rules.reason(f"2024/{name.upper()}/more/photo.jpg") == reason


@pytest.mark.parametrize("name", ORDINARY, ids=ascii)
def test_ordinary_pictures_are_taken(rules: IgnoreRules, name: str) -> None:
    assert rules.reason(name) is None
    assert rules.reason(f"2024/Übersee/{name}") is None


@pytest.mark.parametrize(
    "folder",
    [
        "2024",
        "tmp",
        "photo.tmp",
        "part",
        "album.part",
        "~old",
        "conflict",
        "album (Ann's conflicted copy 2024-01-31)",
        "eaDir",
        "recycle",
        "My Dropbox",
        "a.b",
        "a/b/c",
        "",
        ".",
        "./2024",
    ],
)
def test_ordinary_folders_are_looked_into(rules: IgnoreRules, folder: str) -> None:
    assert rules.folder_reason(folder) is None
    assert rules.reason(f"{folder}/photo.jpg".removeprefix("/")) is None


def test_files_inside_the_folders_of_a_server_are_left_alone(rules: IgnoreRules) -> None:
    for path, reason in [
        ("@eaDir/photo.jpg/SYNOPHOTO_THUMB_XL.jpg", "Synology thumbnails and metadata"),
        ("2024/@eaDir/photo.jpg/SYNOPHOTO_THUMB_XL.jpg", "Synology thumbnails and metadata"),
        (".stversions/2024/photo~20240131-235959.jpg", "Syncthing old versions"),
        ("#recycle/photo.jpg", "Synology recycle bin"),
        (".sync/Archive/photo.jpg", "Resilio Sync metadata"),
        (".dropbox.cache/2024-01-31/photo.jpg", "Dropbox cache"),
        ("$RECYCLE.BIN/S-1-5-21/$RABC123.jpg", "Windows recycle bin"),
        (".Trash-1000/files/photo.jpg", "recycle bin"),
        ("__MACOSX/2024/photo.jpg", "macOS metadata from an archive"),
        ("photo.jpg.download/photo.jpg", "unfinished download"),
        (".~tmp~/photo.jpg", "rsync temporary folder"),
        (".cache/photo.jpg", "hidden folder"),
        (".dropscale-stage/photo.jpg", "dropscale's own file"),
    ]:
        assert rules.reason(path) == reason, path


def test_the_most_specific_reason_is_given(rules: IgnoreRules) -> None:
    assert rules.reason("~syncthing~photo.jpg") == "Syncthing temporary file"
    assert rules.reason("~$photo.jpg") == "Office lock file"
    assert rules.reason("~photo.jpg") == "temporary file (its name begins with ~)"
    assert rules.reason("._sync_1.db") == "Nextcloud metadata"
    assert rules.reason("._photo.jpg") == "macOS metadata"
    assert rules.reason(".photo.jpg") == "hidden file"
    assert rules.folder_reason(".git") == "hidden folder"


def test_other_files_are_not_pictures(rules: IgnoreRules) -> None:
    assert rules.reason("notes.txt") == "not a picture (.txt)"
    assert rules.reason("2024/NOTES.TXT") == "not a picture (.txt)"
    assert rules.reason("photo.jpg.txt") == "not a picture (.txt)"
    assert rules.reason("README") == "not a picture (no extension)"
    assert rules.reason("photo.") == "not a picture (no extension)"
    assert rules.reason("jpg") == "not a picture (no extension)"
    assert rules.reason("v1.2/README") == "not a picture (no extension)"
    assert rules.reason("photo.照片") == "not a picture (.照片)"


def test_a_reason_is_fit_for_a_terminal(rules: IgnoreRules) -> None:
    for name in ("a.x\ny", "a.\x1b[31m", "a.\udcff\udcfe", "a." + "x" * 200):
        reason = rules.reason(name)
        assert reason is not None
        assert reason.isprintable()
        assert len(reason) < 40
        reason.encode()


def test_extensions_may_be_chosen() -> None:
    rules = IgnoreRules(extensions=["GIF", ".Avif"])
    assert rules.reason("photo.gif") is None
    assert rules.reason("photo.AVIF") is None
    assert rules.reason("photo.jpg") == "not a picture (.jpg)"


def test_default_extensions(rules: IgnoreRules) -> None:
    for extension in DEFAULT_EXTENSIONS:
        assert rules.reason(f"photo{extension}") is None
        assert rules.reason(f"PHOTO{extension.upper()}") is None


def test_names_may_be_any_bytes(rules: IgnoreRules) -> None:
    assert rules.reason("caf\udce9.jpg") is None
    assert rules.reason("caf\udce9/\udcff\udcfe.png") is None
    assert rules.reason("._caf\udce9.jpg") == "macOS metadata"
    assert rules.reason("caf\udce9 (Ann's conflicted copy 2024-01-31).jpg") == "Dropbox conflict copy"
    assert IgnoreRules(["é*"]).reason("caf\udce9.jpg") is None
    assert rules.reason("two\nlines.jpg") is None
    assert rules.reason("photo.jpg\n") == "not a picture (.jpg?)"
    assert rules.reason("two\nlines.jpg.part") == "unfinished download"
    assert rules.folder_reason("two\n@eaDir") is None
    assert rules.reason("x" * 250 + ".jpg") is None


@pytest.mark.parametrize("shape", ["IMG_{}.JPG", "2024/trip/DSC {} (1).jpeg", "照片 {}.png", "._IMG_{}.jpg", "n{}.txt"])
@pytest.mark.parametrize(
    "name", ["", "x" * 180, "(" * 180, "." * 180 + "a", "_conflict" * 20, "_-" * 90, "(conflicted copy " * 11]
)
def test_no_name_takes_it_hostage(rules: IgnoreRules, shape: str, name: str) -> None:
    """A pattern that backtracks would take hours; an ordinary machine takes 0.02 s, whatever the names."""
    names = [shape.format(f"{name}{number:05}") for number in range(2000)]
    began = time.process_time()
    for each in names:
        rules.reason(each)
    assert time.process_time() - began < 10
