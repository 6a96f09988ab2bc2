"""Which fields the Drive v3 resources have: what a ``fields`` mask may name."""

from __future__ import annotations

from typing import Any

_USER: dict[str, Any] = dict.fromkeys(
    ("kind", "displayName", "emailAddress", "me", "permissionId", "photoLink")
)


class _Open(dict[str, Any]):
    """A nested resource whose inside is not checked."""

    def __contains__(self, name: object) -> bool:
        return True

    def __missing__(self, name: str) -> Any:
        return self


_OPEN = _Open()


def _names(text: str, inside: Any = None) -> dict[str, Any]:
    return dict.fromkeys(text.split(), inside)


FILE: dict[str, Any] = {
    **_names(
        "copyRequiresWriterPermission createdTime description driveId explicitlyTrashed"
        " fileExtension folderColorRgb fullFileExtension hasAugmentedPermissions hasThumbnail"
        " headRevisionId iconLink id inheritedPermissionsDisabled isAppAuthorized kind md5Checksum"
        " mimeType modifiedByMe modifiedByMeTime modifiedTime name originalFilename ownedByMe"
        " parents permissionIds quotaBytesUsed resourceKey sha1Checksum sha256Checksum shared"
        " sharedWithMeTime size spaces starred teamDriveId thumbnailLink thumbnailVersion trashed"
        " trashedTime version viewedByMe viewedByMeTime viewersCanCopyContent webContentLink"
        " webViewLink writersCanShare"
    ),
    **_names(
        "appProperties capabilities clientEncryptionDetails contentHints contentRestrictions"
        " downloadRestrictions exportLinks imageMediaMetadata labelInfo linkShareMetadata"
        " permissions properties videoMediaMetadata",
        _OPEN,
    ),
    "shortcutDetails": dict.fromkeys(("targetId", "targetMimeType", "targetResourceKey")),
    "owners": _USER,
    "lastModifyingUser": _USER,
    "sharingUser": _USER,
    "trashingUser": _USER,
}
FILE_LIST: dict[str, Any] = {
    "kind": None,
    "nextPageToken": None,
    "incompleteSearch": None,
    "files": FILE,
}
DRIVE: dict[str, Any] = {
    **_names("backgroundImageLink colorRgb createdTime hidden id kind name orgUnitId themeId"),
    "backgroundImageFile": _OPEN,
    "capabilities": _OPEN,
    "restrictions": _OPEN,
}
DRIVE_LIST: dict[str, Any] = {"kind": None, "nextPageToken": None, "drives": DRIVE}
CHANGE: dict[str, Any] = {
    **_names("changeType driveId fileId kind removed teamDriveId time type"),
    "file": FILE,
    "drive": DRIVE,
    "teamDrive": _OPEN,
}
CHANGE_LIST: dict[str, Any] = {
    "kind": None,
    "nextPageToken": None,
    "newStartPageToken": None,
    "changes": CHANGE,
}
START_TOKEN: dict[str, Any] = {"kind": None, "startPageToken": None}
ABOUT: dict[str, Any] = {
    "kind": None,
    "user": _USER,
    **dict.fromkeys(("appInstalled", "canCreateDrives", "canCreateTeamDrives", "maxUploadSize")),
    **_names(
        "storageQuota importFormats exportFormats maxImportSizes folderColorPalette driveThemes"
        " teamDriveThemes",
        _OPEN,
    ),
}
