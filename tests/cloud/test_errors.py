"""Every answer of AWS that matters has a name, a reason and a verdict on trying again."""

import boto3
import pytest
from botocore import exceptions as boto
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.parsers import ResponseParserError

from controlplane.cloud.calls import Calls
from controlplane.cloud.errors import MEANINGS, failure, meaning, named
from controlplane.domain.failure import CloudFailure, FailureCode

CAPACITY, QUOTA, DENIED = FailureCode.CLOUD_CAPACITY, FailureCode.CLOUD_QUOTA, FailureCode.CLOUD_DENIED
INVALID, CONFLICT = FailureCode.CLOUD_INVALID, FailureCode.CLOUD_CONFLICT
THROTTLED, UNAVAILABLE = FailureCode.CLOUD_THROTTLED, FailureCode.CLOUD_UNAVAILABLE

EXPECTED = {
    "InsufficientInstanceCapacity": (CAPACITY, False),
    "InsufficientFreeAddressesInSubnet": (CAPACITY, False),
    "InstanceLimitExceeded": (QUOTA, False),
    "VcpuLimitExceeded": (QUOTA, False),
    "MaxIOPSLimitExceeded": (QUOTA, False),
    "VolumeLimitExceeded": (QUOTA, False),
    "SecurityGroupLimitExceeded": (QUOTA, False),
    "InvalidAMIID.NotFound": (INVALID, False),
    "InvalidAMIID.Malformed": (INVALID, False),
    "InvalidSubnetID.NotFound": (INVALID, False),
    "InvalidGroup.NotFound": (INVALID, False),
    "InvalidParameterCombination": (INVALID, False),
    "InvalidParameterValue": (INVALID, False),
    "Unsupported": (INVALID, False),
    "OptInRequired": (DENIED, False),
    "PendingVerification": (DENIED, False),
    "UnauthorizedOperation": (DENIED, False),
    "AuthFailure": (DENIED, False),
    "ExpiredToken": (DENIED, False),
    "RequestExpired": (DENIED, False),
    "RequestTimeTooSkewed": (DENIED, False),
    "AccessDenied": (DENIED, False),
    "DisabledException": (DENIED, False),
    "RequestLimitExceeded": (THROTTLED, True),
    "SlowDown": (THROTTLED, True),
    "IdempotentParameterMismatch": (CONFLICT, False),
    "IdempotentInstanceTerminated": (CONFLICT, True),
    "IncorrectInstanceState": (CONFLICT, True),
    "VolumeInUse": (CONFLICT, True),
    "DependencyViolation": (CONFLICT, True),
    "OperationNotPermitted": (CONFLICT, False),
    "InternalError": (UNAVAILABLE, True),
    "ServiceUnavailable": (UNAVAILABLE, True),
    "NoSuchBucket": (INVALID, False),
}


def answered(code: str, message: str = "", status: int = 400) -> CloudFailure:
    reply = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return failure(ClientError(reply, "RunInstances"), "RunInstances", "eu-west-1")  # type: ignore[arg-type]


@pytest.mark.parametrize("aws_code", EXPECTED)
def test_an_answer_is_named(aws_code: str) -> None:
    found = answered(aws_code, "what AWS says")
    assert (found.code, found.details.retryable) == EXPECTED[aws_code]
    assert found.aws_code == aws_code
    for part in ("RunInstances", "eu-west-1", aws_code, "what AWS says"):
        assert part in str(found)


def test_every_cloud_reason_is_given_by_some_answer() -> None:
    cloud = {code for code in FailureCode if code.startswith("CLOUD_")}
    assert {row.code for row in MEANINGS.values()} == cloud


def test_every_row_can_be_reached() -> None:
    for pattern, row in MEANINGS.items():
        assert meaning(pattern.replace("*", "")) == row, pattern


@pytest.mark.parametrize(("status", "code"), [(400, INVALID), (500, UNAVAILABLE), (503, UNAVAILABLE)])
def test_an_unknown_answer_is_judged_by_its_status(status: int, code: FailureCode) -> None:
    assert answered("BrandNewProblem", status=status).code is code


def test_a_missing_permission_is_named_and_the_encoded_blob_is_not_shown() -> None:
    old = answered("UnauthorizedOperation", "You may not. Encoded authorization failure message: AbC-dEf_123")
    assert "needs ec2:RunInstances" in str(old)
    assert "AbC-dEf_123" not in str(old)
    new = named(
        "UnauthorizedOperation",
        "RunInstances",
        "eu-west-1",
        "User: arn:aws:iam::1:user/x is not authorized to perform: iam:PassRole on resource: y",
    )
    assert "needs iam:PassRole" in str(new)


@pytest.mark.parametrize(
    ("error", "code", "retryable"),
    [
        (boto.EndpointConnectionError(endpoint_url="http://x"), UNAVAILABLE, True),
        (boto.ConnectTimeoutError(endpoint_url="http://x"), UNAVAILABLE, True),
        (boto.ReadTimeoutError(endpoint_url="http://x"), UNAVAILABLE, True),
        (boto.ConnectionClosedError(endpoint_url="http://x"), UNAVAILABLE, True),
        (boto.PaginationError(message="the same token twice"), UNAVAILABLE, True),
        (ResponseParserError("truncated XML"), UNAVAILABLE, True),
        (boto.NoCredentialsError(), DENIED, False),
        (boto.PartialCredentialsError(provider="env", cred_var="x"), DENIED, False),
        (boto.ParamValidationError(report="x"), INVALID, False),
    ],
)
def test_what_happens_before_or_without_an_answer(error: Exception, code: FailureCode, retryable: bool) -> None:
    found = failure(error, "DescribeVpcs", "eu-west-1")
    assert (found.code, found.details.retryable) == (code, retryable)


async def test_an_endpoint_that_nobody_serves_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    calls = Calls("eu-west-1")
    with pytest.raises(CloudFailure) as refused:
        await calls.once("describe_vpcs")
    calls.close()
    assert (refused.value.code, refused.value.details.retryable) == (UNAVAILABLE, True)


def test_the_unpatched_client_would_raise_its_own_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    client = boto3.client("ec2", region_name="eu-west-1", config=Config(retries={"total_max_attempts": 1}))
    with pytest.raises(boto.EndpointConnectionError):
        client.describe_vpcs()
