"""Who may do what, written down by hand and not derived from anything in the product.

Per row: the answers for own, organization, collaboration, other, outside (see ``world``). ``A`` allowed; ``D`` denied:
PERMISSION_DENIED; ``H`` hidden: NOT_FOUND, as if it did not exist. One letter stands for all five. Roles that are not
named: ``D``. ``algorithm`` and ``nobody`` are not authenticated and get nothing that needs a token.
"""

from __future__ import annotations

from tests.rpc.access.world import RELATIONS, USERS

ALL_USERS = dict.fromkeys(USERS, "A")
EVERYBODY = {**ALL_USERS, "node": "A"}
_MEMBERS = ("collaboration-admin", "organization-admin", "researcher", "viewer")


def _members(answers: str, **others: str) -> dict[str, str]:
    rows = {"root": "A", "server-operator": "A", **dict.fromkeys(_MEMBERS, answers)}
    return rows | {role.replace("_", "-"): answer for role, answer in others.items()}


def _same(methods: tuple[str, ...], row: dict[str, str]) -> dict[str, dict[str, str]]:
    return dict.fromkeys(methods, row)


TABLE: dict[str, dict[str, str]] = {
    # Identity: everybody about themselves.
    "AuthService.GetServerInfo": {"anyone": "A"},
    "AuthService.Bootstrap": {"anyone": "A"},
    "AuthService.Login": {"anyone": "A"},
    "AuthService.RefreshToken": {"anyone": "A"},
    "AuthService.ExchangeAssertion": {"anyone": "A"},
    **_same(("AuthService.GetLoginNonce", "AuthService.ExchangeIdentityToken"), {"anyone": "A"}),
    "AuthService.ResetPassword": {"anyone": "A"},
    "AuthService.Logout": ALL_USERS,
    **_same(
        (
            "CredentialService.GetCredentials",
            "CredentialService.BeginOneTimeCodes",
            "CredentialService.ConfirmOneTimeCodes",
            "CredentialService.DisableOneTimeCodes",
            "CredentialService.RenewRecoveryCodes",
            "CredentialService.LinkIdentity",
            "CredentialService.ListSessions",
        ),
        ALL_USERS,
    ),
    # Of one's own only; what the requests name is nobody's.
    **_same(("CredentialService.UnlinkIdentity", "CredentialService.EndSession"), dict.fromkeys(USERS, "H")),
    "AuthService.ChangePassword": ALL_USERS,
    "AuthService.GetPrincipal": EVERYBODY,
    "KeyService.PublishKeys": EVERYBODY,
    # Keys are for those who seal to them: colleagues and partners. Users of the server itself seal nothing.
    "KeyService.GetKeys": {**dict.fromkeys(_MEMBERS, "AAAHH"), "root": "H", "server-operator": "H", "node": "AAAHH"},
    "KeyService.ListNodeKeys": {
        **dict.fromkeys(_MEMBERS, "HAAHH"),
        "root": "H",
        "server-operator": "H",
        "node": "HAAHH",
    },
    # Organizations.
    "OrganizationService.CreateOrganization": {"root": "A", "server-operator": "A"},
    "OrganizationService.GetOrganization": _members("AAAHH", collaboration_admin="A", node="AAAHH"),
    "OrganizationService.ListOrganizations": _members("AAAHH", collaboration_admin="A"),
    "OrganizationService.UpdateOrganization": {"root": "A", "server-operator": "A", "organization-admin": "AADHH"},
    "OrganizationService.SetCaCertificates": {"root": "A", "server-operator": "A", "organization-admin": "AADHH"},
    **_same(
        ("TrustService.AddCaCertificate", "TrustService.RemoveCaCertificate", "TrustService.SetRevocationList"),
        {"root": "A", "server-operator": "A", "organization-admin": "AADHH"},
    ),
    "TrustService.GetTrustBundle": EVERYBODY,
    "OrganizationService.DeleteOrganization": {"root": "A", "server-operator": "A"},
    # Users.
    "UserService.CreateUser": {"root": "A", "organization-admin": "AADDD"},
    "UserService.GetUser": _members("AHHHH", organization_admin="AAHHH"),
    "UserService.ListUsers": _members("AHHHH", organization_admin="AAHHH"),
    "UserService.UpdateUser": {"root": "A", "organization-admin": "AAHHH"},
    "UserService.DeleteUser": {"root": "A", "organization-admin": "AAHHH"},
    **_same(
        ("UserCredentialService.GetUserCredentials", "UserCredentialService.RevokeSessions"),
        {"root": "A", "organization-admin": "AAHHH"},
    ),
    # Not for oneself: that would go round one's own password.
    **_same(
        ("UserCredentialService.IssuePasswordReset", "UserCredentialService.RemoveOneTimeCodes"),
        {"root": "DAAAA", "organization-admin": "DAHHH"},
    ),
    "UserCredentialService.UnlinkUserIdentity": {"root": "A", "organization-admin": "AAHHH"},
    # This server has no identity provider, and says so before it looks at the user.
    "UserCredentialService.LinkUserIdentity": {"root": "A", "organization-admin": "A"},
    # Collaborations. Whoever made one sees it, also without being a member.
    "CollaborationService.CreateCollaboration": {"root": "A", "collaboration-admin": "A"},
    "CollaborationService.GetCollaboration": _members("AAAHH", node="AAAHH"),
    "CollaborationService.ListCollaborations": _members("AAAHH"),
    "CollaborationService.UpdateCollaboration": {"root": "A", "collaboration-admin": "AAAHH"},
    "CollaborationService.DeleteCollaboration": {"root": "A", "collaboration-admin": "ADDHH"},
    "CollaborationService.AddMember": {"root": "A", "collaboration-admin": "AAAHH"},
    "CollaborationService.RemoveMember": {"root": "A", "collaboration-admin": "AAAHH"},
    # Consent: nobody answers for an organization but its own admins; who sees it is told so.
    "MembershipService.ListInvitations": {"root": "A", "server-operator": "A", "organization-admin": "AAHHH"},
    **_same(
        (
            "MembershipService.AcceptInvitation",
            "MembershipService.DeclineInvitation",
            "MembershipService.SuspendMembership",
            "MembershipService.ResumeMembership",
            "MembershipService.LeaveCollaboration",
        ),
        {"root": "D", "server-operator": "D", "organization-admin": "AADHH"},
    ),
    # Studies: one's own, also in a collaboration that one's organization has left.
    "StudyService.CreateStudy": {"root": "A", "collaboration-admin": "AAADD"},
    "StudyService.GetStudy": _members("AAAHH", node="AAAHH"),
    "StudyService.ListStudies": _members("AAAHH"),
    "StudyService.UpdateStudy": {"root": "A", "collaboration-admin": "AAAHH"},
    "StudyService.DeleteStudy": {"root": "A", "collaboration-admin": "AAAHH"},
    # Nodes.
    "NodeService.CreateNode": {"root": "A", "organization-admin": "AADDD"},
    "NodeService.GetNode": _members("AAAHH", node="AAAHH"),
    "NodeService.ListNodes": _members("AAAHH"),
    "NodeService.UpdateNode": {"root": "A", "organization-admin": "AADHH"},
    "NodeService.DeleteNode": {"root": "A", "server-operator": "A", "organization-admin": "AADHH"},
    # Roles.
    "RoleService.CreateRole": {"root": "A", "organization-admin": "AADDD"},
    "RoleService.GetRole": _members("AAHHH"),
    "RoleService.ListRoles": _members("AAHHH"),
    "RoleService.UpdateRole": {"root": "A", "organization-admin": "AAHHH"},
    "RoleService.DeleteRole": {"root": "A", "organization-admin": "AAHHH"},
    # The audit.
    "AuditService.ListAuditEntries": {"root": "A", "server-operator": "A", "organization-admin": "AAHHH"},
    "AuditService.ExportAudit": {"root": "A", "server-operator": "A"},
    "AuditService.GetAuditLog": {"root": "A", "server-operator": "A"},
    # Tasks. Seeing is for the organization that asks and those that are asked; nodes see what they made.
    **_same(
        ("TaskService.CreateTask", "TaskService.RunTask", "TaskService.RunTasks"),
        {"root": "A", "organization-admin": "AAADD", "researcher": "AAADD"},
    ),
    **_same(
        ("TaskService.GetTask", "TaskService.WatchTask"),
        _members("AAHHH", collaboration_admin="AAAHH", node="AHHHH"),
    ),
    "TaskService.ListTasks": _members("AAHHH", collaboration_admin="AAAHH"),
    "TaskService.CancelTask": {
        "root": "A",
        "server-operator": "A",
        "collaboration-admin": "AAAHH",
        "organization-admin": "AAHHH",
        "researcher": "ADHHH",
        "node": "AHHHH",
    },
    # Payloads: whoever uploaded one, and the parties of its tasks, root or not.
    **_same(
        ("PayloadService.UploadPayload", "PayloadService.GetUpload"),
        {"root": "A", "organization-admin": "A", "researcher": "A", "node": "A"},
    ),
    "PayloadService.DownloadPayload": dict.fromkeys(("root", "organization-admin", "researcher", "node"), "AHHHH"),
    # Sessions of nodes and relays.
    **_same(("NodeSessionService.Connect", "NodeSessionService.Sync"), {"node": "A"}),
    # No registry is configured here.
    "RegistryService.GetPullToken": {"node": "H"},
    "RelayBrokerService.OpenPair": {"node": "D"},
    "RelayBrokerService.WatchPeers": {"node": "D"},
    "RelayService.Open": {"anyone": "A"},
    "RelayService.WatchLoad": {"anyone": "A"},
}


def expected(method: str, role: str, relation: str) -> str:
    """The letter of a cell; ``U`` stands for UNAUTHENTICATED.

    Raises:
        KeyError: the RPC has no row: add one, by hand.
    """
    row = TABLE[method]
    if "anyone" in row:
        return row["anyone"]
    if role in ("algorithm", "nobody"):
        return "U"
    answers = row.get(role, "D")
    return answers if len(answers) == 1 else answers[RELATIONS.index(relation)]
