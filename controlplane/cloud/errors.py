"""What AWS answers, named: EC2's error codes -> FailureCode, whether waiting may help, and what a person can do."""

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from controlplane.domain.failure import CloudFailure, FailureCode

MAX_AWS_MESSAGE = 300
_ENCODED = re.compile(r"\s*Encoded authorization failure message:\s*\S+", re.IGNORECASE)
_NEEDED = re.compile(r"not authorized to perform:?\s*([\w-]+:\w+)")


@dataclass(frozen=True)
class Meaning:
    """One row: the stable reason, whether the same request may succeed later, and the sentence for a person."""

    code: FailureCode
    retryable: bool
    hint: str


def _capacity(hint: str) -> Meaning:
    return Meaning(FailureCode.CLOUD_CAPACITY, False, hint)


def _quota(hint: str) -> Meaning:
    return Meaning(FailureCode.CLOUD_QUOTA, False, f"{hint}; ask AWS for a higher quota or delete what is not needed")


def _denied(hint: str) -> Meaning:
    return Meaning(FailureCode.CLOUD_DENIED, False, hint)


def _invalid(hint: str) -> Meaning:
    return Meaning(FailureCode.CLOUD_INVALID, False, hint)


def _conflict(hint: str, *, retryable: bool) -> Meaning:
    return Meaning(FailureCode.CLOUD_CONFLICT, retryable, hint)


THROTTLED = Meaning(FailureCode.CLOUD_THROTTLED, True, "the account makes too many requests; WAP slows down")
UNAVAILABLE = Meaning(FailureCode.CLOUD_UNAVAILABLE, True, "AWS could not do it just now")

# First match wins; `*` as in file names. Sources: EC2 API error codes, S3 and KMS error lists of the AWS documentation.
MEANINGS: dict[str, Meaning] = {
    "InsufficientInstanceCapacity": _capacity("AWS has no such instance free in this zone right now"),
    "InsufficientHostCapacity": _capacity("AWS has no such host free in this zone right now"),
    "InsufficientCapacity": _capacity("AWS has no capacity for this right now"),
    "InsufficientVolumeCapacity": _capacity("AWS has no such volume free in this zone right now"),
    # A subnet without addresses is full as a zone is: another zone may do.
    "InsufficientFreeAddressesInSubnet": _capacity("the subnet has no free address"),
    "InstanceLimitExceeded": _quota("the account's limit of instances is reached"),
    "VcpuLimitExceeded": _quota("the account's limit of vCPUs is reached"),
    "MaxIOPSLimitExceeded": _quota("the account's limit of provisioned IOPS is reached"),
    "VolumeLimitExceeded": _quota("the account's limit of volumes or their size is reached"),
    "VpcLimitExceeded": _quota("the region's limit of VPCs is reached"),
    "*LimitExceeded.Throttled": THROTTLED,
    "RequestLimitExceeded": THROTTLED,
    "Throttling": THROTTLED,
    "ThrottlingException": THROTTLED,
    "RequestThrottled": THROTTLED,
    "EC2ThrottledException": THROTTLED,
    "SlowDown": THROTTLED,
    "*LimitExceeded": _quota("a limit of the account is reached"),
    "InvalidAMIID.*": _invalid("the image does not exist in this region; check the setting image"),
    "InvalidSubnet.Conflict": _conflict("the address range is taken by another subnet", retryable=False),
    "InvalidSubnetID.*": _invalid("the subnet does not exist (any more)"),
    "InvalidGroup.Duplicate": _conflict("a security group of that name exists", retryable=False),
    "InvalidGroup.*": _invalid("the security group does not exist (any more)"),
    "InvalidGroupId.*": _invalid("the security group does not exist (any more)"),
    "InvalidVolume.ZoneMismatch": _conflict("volume and instance are in different zones", retryable=False),
    "InvalidKey*": _invalid("the KMS key does not exist or cannot be used"),
    "InvalidParameterCombination": _invalid("these settings do not go together"),
    "Unsupported": _invalid("this instance type or setting is not offered in this zone"),
    "UnsupportedOperation": _invalid("this cannot be done with this resource"),
    "OptInRequired": _denied("the account must subscribe to this first, in the AWS console"),
    "PendingVerification": _denied("AWS still verifies the account; this takes up to four hours"),
    "Blocked": _denied("AWS has blocked the account"),
    "UnauthorizedOperation": _denied("the control plane's role lacks a permission"),
    "AccessDenied*": _denied("the control plane's role lacks a permission"),
    "AuthFailure": _denied("AWS does not accept the control plane's credentials"),
    "InvalidClientTokenId": _denied("AWS does not know the control plane's access key"),
    "UnrecognizedClientException": _denied("AWS does not know the control plane's access key"),
    "SignatureDoesNotMatch": _denied("AWS does not accept the secret access key"),
    "ExpiredToken*": _denied("the control plane's session credentials have expired"),
    "RequestExpired": _denied("the request was too old; check the clock of the control plane"),
    "*TimeTooSkewed": _denied("the clock of the control plane is wrong"),
    "OperationNotPermitted": _conflict("the resource is protected, for example against termination", retryable=False),
    # One token with two meanings is a defect of ours: repeating it cannot help.
    "IdempotentParameterMismatch": _conflict("the same client token came with other parameters", retryable=False),
    "IdempotentInstanceTerminated": _conflict("the instance of this client token is terminated", retryable=True),
    "IncorrectInstanceState": _conflict("the instance is not in a state that allows it", retryable=True),
    "IncorrectState*": _conflict("the resource is not in a state that allows it", retryable=True),
    "VolumeInUse": _conflict("the volume is attached", retryable=True),
    "DependencyViolation": _conflict("something still depends on it", retryable=True),
    "Resource.AlreadyAssociated": _conflict("it is attached already", retryable=False),
    "NoSuchBucket": _invalid("the bucket does not exist"),
    "DisabledException": _denied("the KMS key is disabled"),
    "KMSInvalidStateException": _denied("the KMS key is disabled or pending deletion"),
    "Client.InvalidKMSKey*": _denied("the KMS key is disabled, pending deletion or not allowed"),
    "InternalError": UNAVAILABLE,
    "InternalFailure": UNAVAILABLE,
    "ServiceUnavailable": UNAVAILABLE,
    "Unavailable": UNAVAILABLE,
    "Invalid*": _invalid("AWS does not accept the request"),
}
REJECTED = _invalid("AWS does not accept the request")
NO_CREDENTIALS = _denied("no AWS credentials found; give the control plane a role or AWS_ACCESS_KEY_ID")
NOT_REACHED = Meaning(FailureCode.CLOUD_UNAVAILABLE, True, "AWS could not be reached, or its answer was lost")

_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.CredentialRetrievalError,
    boto.ProfileNotFound,
    boto.TokenRetrievalError,
)
_UNREACHED = (boto.HTTPClientError, boto.ConnectionError, boto.PaginationError, ResponseParserError)


def meaning(aws_code: str, status: int = 400) -> Meaning:
    """The row of an EC2 error code. A code without a row is judged by its HTTP status."""
    for pattern, row in MEANINGS.items():
        if fnmatchcase(aws_code, pattern):
            return row
    return UNAVAILABLE if status >= 500 else REJECTED


def failure(error: Exception, action: str, region: str) -> CloudFailure:
    """The CloudFailure for what botocore raised on `action` (EC2's name of it, for example RunInstances)."""
    if isinstance(error, boto.ClientError):
        details = error.response.get("Error", {})
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400))
        return named(details.get("Code", "Unknown"), action, region, details.get("Message", ""), status)
    if isinstance(error, _CREDENTIALS):
        row = NO_CREDENTIALS
    elif isinstance(error, _UNREACHED):
        row = NOT_REACHED
    else:
        row = REJECTED
    name = type(error).__name__
    return CloudFailure(row.code, f"{action} in {region}: {row.hint} ({name})", aws_code=name, retryable=row.retryable)


def named(aws_code: str, action: str, region: str, aws_message: str = "", status: int = 400) -> CloudFailure:
    """The CloudFailure for an EC2 error code, with what a person can do about it."""
    row = meaning(aws_code, status)
    said = _ENCODED.sub("", aws_message).strip()[:MAX_AWS_MESSAGE]
    hint = row.hint
    if aws_code == "UnauthorizedOperation" or aws_code.startswith("AccessDenied"):
        needed = _NEEDED.search(aws_message)
        hint = f"the control plane's role needs {needed.group(1) if needed else f'ec2:{action}'}"
    text = f"{action} in {region}: {hint} ({aws_code}{f': {said}' if said else ''})"
    return CloudFailure(row.code, text, aws_code=aws_code, retryable=row.retryable)


def missing(error: CloudFailure) -> bool:
    """Whether AWS says that there is no such thing: InvalidVpcID.NotFound and the like."""
    return error.aws_code.endswith(".NotFound")
