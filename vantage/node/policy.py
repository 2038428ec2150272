"""What the data owner allows: pure rules that return a decision. The node decides last, whatever the server says."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.common.declaration import Declaration
from vantage.common.errors import Reason, VantageError, error
from vantage.node.config import NodeConfig
from vantage.node.declaration import check_arguments
from vantage.node.image_sections import lists_user

JSON = "application/json"


@dataclass(frozen=True)
class Decision:
    """Whether a run may happen, and why.

    Attributes:
        refusal: why not, for the researcher; None when it may.
        because: why it may, for the node's admin.
    """

    refusal: VantageError | None = None
    because: str = ""

    @property
    def allowed(self) -> bool:
        """Whether it may."""
        return self.refusal is None

    @property
    def reason(self) -> str:
        """Why, in words."""
        return self.because if self.refusal is None else self.refusal.message

    def enforce(self) -> None:
        """Go on only when it may.

        Raises:
            VantageError: the refusal.
        """
        if self.refusal is not None:
            raise self.refusal


ALLOWED = Decision()


def _refuse(reason: Reason, message: str, **metadata: str) -> Decision:
    return Decision(error(reason, message, **metadata))


def decide_request(config: NodeConfig, assign: pb.Assign, collaborations: Collection[str]) -> Decision:
    """Whether the node takes the question at all, before it looks at image and arguments.

    Checks: (1) it is addressed to this node, (2) in a collaboration that the node serves, (3) by an organization and
    (4) a person or node that the owner allows, (5) about datasets that exist here and serve that collaboration.
    """
    spec = assign.spec
    node = config.identity
    # (1)
    if len(spec.targets) != 1 or spec.targets[0].organization != node.organization:
        return _refuse(Reason.POLICY_REFUSED, f"the run is not addressed to {node.organization}")
    target = spec.targets[0]
    if target.node and target.node != node.name:
        return _refuse(Reason.POLICY_REFUSED, f"the run is addressed to {target.node}, this is {node.name}")
    # (2)
    if spec.collaboration not in collaborations:
        return _refuse(
            Reason.COLLABORATION_NOT_SERVED,
            f"{node.name} does not serve {spec.collaboration}: ask its admin",
            collaboration=spec.collaboration,
        )
    # (3)
    policy = config.policy
    if policy.organizations is not None and assign.creator_organization not in policy.organizations:
        return _refuse(
            Reason.POLICY_REFUSED,
            f"the policy of {node.name} does not allow {assign.creator_organization or 'callers of no organization'} "
            "to ask: ask its admin",
        )
    # (4) A node speaks for a user whom this node cannot see: when users are listed, nodes must be listed as well.
    creator = assign.creator
    if creator.startswith("organizations/"):
        restricted = policy.users is not None or policy.nodes is not None
        permitted = not restricted or creator in (policy.nodes or ())
    else:
        login = creator.rpartition("/")[2]
        permitted = policy.users is None or lists_user(policy.users, assign.creator_organization, login)
    if not permitted:
        return _refuse(Reason.POLICY_REFUSED, f"the policy of {node.name} does not allow {creator} to ask")
    # (5)
    for binding in target.datasets:
        dataset = config.dataset(binding.dataset)
        if dataset is None or not dataset.serves(spec.collaboration):
            # A dataset that is not told of is none to those who guess names either.
            serving = [each for each in config.datasets if each.serves(spec.collaboration)]
            offered = [each.name for each in serving if each.share != "none"]
            return _refuse(
                Reason.DATASET_UNKNOWN,
                f"{node.name} has no dataset {binding.dataset!r} for {spec.collaboration}; it offers "
                f"{', '.join(offered) or 'none'}",
                dataset=binding.dataset,
            )
    return ALLOWED


def decide_root(config: NodeConfig, requester: str) -> Decision:
    """Whether the one may ask in whose name a task runs: also when a node asks, for a task of theirs.

    Checks: (1) their organization may, (2) so may they.

    Args:
        config: the node's.
        requester: who has signed the order at the top, ``organizations/{organization}/users/{user}``.
    """
    organization, _, login = requester.partition("/users/")
    policy = config.policy
    for whom, allowed in (
        # (1)
        (organization, policy.organizations is None or organization in policy.organizations),
        # (2)
        (requester, policy.users is None or lists_user(policy.users, organization, login)),
    ):
        if not allowed:
            return _refuse(
                Reason.POLICY_REFUSED,
                f"the policy of {config.identity.name} does not allow {whom} to ask, nor others in their name: ask its "
                "admin",
            )
    return ALLOWED


def decide_call(
    declaration: Declaration,
    assign: pb.Assign,
    media_type: str,
    arguments: bytes,
    gpus: int,
    files: Sequence[str] = (),
) -> Decision:
    """Whether the image may be called like this.

    Checks: (1) it declares the function, (2) each data parameter is bound once, to a dataset or to a file that came
    with the arguments, and nothing else, (3) the arguments meet the declared schema, (4) the node lends as many
    graphics processors as the function needs.

    Args:
        gpus: how many the node lends.
        files: parameters whose files came with the arguments.
    """
    spec = assign.spec
    try:
        # (1)
        function = declaration.function(spec.function)
        # (2)
        bound = [*(binding.parameter for binding in spec.targets[0].datasets), *files]
        data = [each.name for each in function.data]
        missing = [parameter for parameter in data if parameter not in bound]
        if missing:
            return _refuse(
                Reason.ARGUMENTS_INVALID,
                f"{function.name} needs a dataset for {', '.join(missing)}: bind one",
                function=function.name,
            )
        if len(set(bound)) != len(bound) or set(bound) - set(data):
            return _refuse(
                Reason.ARGUMENTS_INVALID,
                f"{function.name} takes one dataset or file for each of: {', '.join(data) or 'nothing'}",
                function=function.name,
            )
        # (3)
        if media_type not in ("", JSON):
            return _refuse(Reason.ARGUMENTS_INVALID, f"arguments must be {JSON}, got {media_type[:100]!r}")
        check_arguments(function, arguments)
    except VantageError as problem:
        return Decision(problem)
    # (4)
    if function.gpus > gpus:
        return _refuse(
            Reason.POLICY_REFUSED,
            f"{function.name} needs {function.gpus} graphics processors, the node lends {gpus}: ask its admin "
            "(docker.gpus)",
            function=function.name,
        )
    return ALLOWED
