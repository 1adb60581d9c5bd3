"""What each failure of AWS means: one table from error code or SDK exception to one of our errors.

Services use different codes for the same failure, so a row lists all of them; rows are tried from the top. The table
holds names only, so that no SDK is imported.
"""

import re
import shlex
from typing import NamedTuple

from orchestrator.contract.command_line import command
from orchestrator.errors import (
    AccessError,
    AccountError,
    CapacityError,
    ConflictError,
    CredentialsError,
    EndpointError,
    LostAnswerError,
    MachineError,
    MissingError,
    NoSuchInstanceError,
    OrchestratorError,
    QuotaError,
    ServiceError,
    SpecError,
)

_LONGEST_EVIDENCE = 600  # characters; "encoded authorization messages" run to thousands


class Failure(NamedTuple):
    """The content of an SDK error, without the SDK's types."""

    names: tuple[str, ...]
    """The error code and HTTP status of an answer, or the names of an exception's classes, nearest first."""
    message: str
    status: int = 0
    """HTTP status; 0 when no answer came."""
    service: str = ""
    operation: str = ""
    region: str = ""
    """Region of the resource if the failure names it, else of the request."""
    answer_lost: bool = False
    """Whether an attempt to create something may have succeeded although no answer came."""


class Row(NamedTuple):
    """One line of the table."""

    names: str
    """Error codes and exception names, with spaces between."""
    error: type[OrchestratorError]
    cause: str
    next_step: str
    pattern: str = ""
    """Regular expression that the message must match, if given."""
    service: str = ""
    """The only service that the row applies to, if given."""
    retry_after: float | None = None
    """Seconds after which the same request may succeed; None when waiting does not help."""


_SIGN_IN = "aws configure  (or: aws sso login)"
_SIGN_IN_AGAIN = "aws sso login  (or renew your access keys: aws configure)"
_SET_REGION = "export AWS_REGION=us-east-1  (the region to train in, or that of your stack)"
_LATER = "try again in a minute"
_BUSY_SECONDS = 5.0
"""Before a server, or a service, that has too many requests gets its first retry."""
_WAKING_SECONDS = 30.0
"""The same of an endpoint whose first instance has to start, which takes minutes."""
_CLOCK = "set this machine's clock: sudo timedatectl set-ntp true"
_INFRA = command("infra", "show")
_SCALE = command("endpoints", "scale", "NAME")
_ENDPOINT_LOGS = command("endpoints", "logs", "NAME")
_INVALID = "ValidationException ValidationError"
_S3_ACTIONS = {
    "CompleteMultipartUpload": "PutObject",
    "CreateMultipartUpload": "PutObject",
    "DeleteObjects": "DeleteObject",
    "HeadObject": "GetObject",
    "ListObjectVersions": "ListBucketVersions",
    "ListObjectsV2": "ListBucket",
    "UploadPart": "PutObject",
}
"""Operations whose IAM action has another name."""
_LACK = r"\b(not enough|lack of|insufficient|not (currently )?have (enough|sufficient))"
_TYPE = r"(ml\.)?[a-z]+\d[\w-]*\.\w+"  # of an instance
# What stands before "capacity" where it is that of instances: not "enough data to detect capacity".
_OF_INSTANCES = r"((instance|compute|ec2|spot|gpu|on-demand|available|free|ml|[\w-]+\.[\w.-]+) ){0,3}"
CAPACITY_WORDS = (
    r"CapacityError|InsufficientInstanceCapacity|InsufficientCapacity|unable to provision requested"
    rf"|{_LACK} {_OF_INSTANCES}capacity\b"
    rf"|{_LACK} {_OF_INSTANCES}instances (of|of type|for) {_TYPE}"
    rf"|{_LACK} ((available|free) )?({_TYPE}|spot|ec2|on-demand) instances"
    r"|\bml\.[\w.-]+ (is |are )?(currently )?temporarily unavailable"
    r"|instance type.{0,60} (temporarily unavailable|not available in .{0,40}availability zone)"
    r"|\bno ([\w.-]+ ){0,2}(instance|compute|spot|ec2|on-demand) capacity\b|\bno capacity (is )?(available|for)\b"
)
"""How AWS says that it has no instances of a type now."""
NOT_IN_REGION_WORDS = (
    r"requested resource .{0,80}not available in this region|not supported in (this|the) region"
    r"|instance type.{0,60} not supported in .{0,40}availability zone"
)
"""How AWS says that a region, or a zone of it, has no instances of a type at all."""
_EXISTS = r"already exist(s|ing)|in-progress (endpoint|inference component)|DELETE_IN_PROGRESS"
"""How SageMaker's hosting says that a name is taken, or that something of that name is being changed."""
_MISSING = r"not found|no scalable target|does not exist|doesn't exist|could not find|no s3 objects found"

# fmt: off
# (a table reads as one)
TABLE = (
    Row("NoCredentialsError NoAuthTokenError", CredentialsError, "this machine has no AWS credentials", _SIGN_IN),
    Row(
        "ExpiredToken ExpiredTokenException TokenRefreshRequired UnauthorizedSSOTokenError SSOTokenLoadError"
        " LoginRefreshRequired LoginTokenLoadError",
        CredentialsError, "the AWS session has expired", _SIGN_IN_AGAIN),
    Row("TokenRetrievalError", CredentialsError, "the AWS session has expired", _SIGN_IN_AGAIN, "expired|refresh"),
    Row(
        "PartialCredentialsError CredentialRetrievalError TokenRetrievalError SSOError LoginError"
        " MetadataRetrievalError RefreshWithMFAUnsupportedError UnknownCredentialError"
        " UnknownTokenProviderError",
        CredentialsError, "the AWS credentials could not be read", _SIGN_IN),
    Row("ProfileNotFound", CredentialsError, "there is no AWS profile of that name", "aws configure list-profiles"),
    Row(
        "ConfigParseError ConfigNotFound InvalidConfigError InvalidRetryConfigurationError"
        " InvalidDefaultsMode InvalidIMDSEndpointError InvalidIMDSEndpointModeError InvalidProxiesConfigError",
        CredentialsError, "the AWS configuration cannot be read", "fix ~/.aws/config and ~/.aws/credentials"),
    Row(
        "RequestTimeTooSkewed RequestExpired RequestInTheFuture",
        CredentialsError, "this machine's clock is off", _CLOCK),
    Row(
        "SignatureDoesNotMatch InvalidSignatureException InvalidSignature",
        CredentialsError, "this machine's clock is off", _CLOCK, "signature expired|not yet current|skew"),
    Row(
        "SignatureDoesNotMatch InvalidSignatureException InvalidSignature InvalidClientTokenId InvalidToken"
        " UnrecognizedClientException UnrecognizedClient InvalidAccessKeyId AuthFailure NotSignedUp"
        " MissingAuthenticationToken MissingAuthenticationTokenException IncompleteSignature"
        " IncompleteSignatureException",
        CredentialsError, "AWS does not know these credentials", _SIGN_IN),
    Row("NoRegionError", CredentialsError, "no AWS region is set", _SET_REGION),
    Row("UnknownRegion", CredentialsError, 'there is no AWS region "{region}"', _SET_REGION),
    Row("InvalidRegionError", CredentialsError, "the AWS region is not valid", _SET_REGION),
    Row(
        "PermanentRedirect AuthorizationHeaderMalformed IllegalLocationConstraintException 301",
        CredentialsError, "the bucket is in another region", "export AWS_REGION={region}"),
    Row(
        "UnknownEndpointError ServiceNotInRegionError EndpointVariantError EndpointProviderError"
        " UnknownRegionError OptInRequired SubscriptionRequiredException",
        CredentialsError, "the service is not available in this region", _SET_REGION),
    Row(
        "InvalidEndpointConfigurationError InvalidDNSNameError InvalidHostLabelError",
        CredentialsError, "the address of the service is not valid", "check AWS_ENDPOINT_URL and AWS_REGION"),
    Row(
        "AccessDenied AccessDeniedException AuthorizationError AuthorizationErrorException"
        " UnauthorizedOperation NotAuthorized 403",
        AccessError, "{action} is not allowed", "ask the account's owner to allow {action} for you",
        "not authorized to perform"),
    Row(
        "AccessDenied AllAccessDisabled 403 Forbidden",
        AccessError, "the bucket belongs to another account, or {action} is not allowed in it", _INFRA, service="s3"),
    Row(
        "AccessDenied AccessDeniedException AuthorizationError AuthorizationErrorException"
        " UnauthorizedOperation NotAuthorized KMSAccessDeniedException KMS.AccessDeniedException 401 403",
        AccessError, "{action} is not allowed", "ask the account's owner to allow {action} for you"),
    Row(
        _INVALID,
        AccessError, "the service may not assume the role, or the role does not exist", _INFRA,
        "could not assume role|cannot be assumed|unable to assume|not authorized to assume|execution role arn"
        "|cross-account pass role"),
    Row(
        f"ResourceLimitExceeded ResourceLimitExceededException {_INVALID}",
        NoSuchInstanceError, "this region has no such instance type",
        "use another instance type, or another region", NOT_IN_REGION_WORDS),
    Row(
        "ResourceLimitExceeded ResourceLimitExceededException LimitExceededException LimitExceeded"
        " ServiceQuotaExceededException TooManyBuckets InstanceLimitExceeded AccountLimitExceededException",
        QuotaError, "the account's quota{quota} does not allow it", "{raise_quota}"),
    Row(
        "InsufficientInstanceCapacity InsufficientCapacityException CapacityError InsufficientCapacity"
        " EC2InsufficientCapacityError EC2CapacityError InsufficientHostCapacity InsufficientReservedInstanceCapacity",
        CapacityError, "AWS has no such instances available now", "try again later, or use another instance type"),
    Row(
        _INVALID,
        CapacityError, "AWS has no such instances available now", "try again later, or use another instance type",
        CAPACITY_WORDS),
    Row(
        _INVALID,
        ServiceError, "the endpoint has no instance now; a request like this one has it start one",
        "try again in a few minutes", "has no capacity to process", retry_after=_WAKING_SECONDS),
    Row(
        _INVALID,
        ConflictError, "it already exists, or is being changed", "look at what exists, then try again", _EXISTS),
    Row(
        "400", CredentialsError, "AWS refused without saying why; most often the session has expired",
        "aws sts get-caller-identity  (it says why)", "^bad request$"),
    Row("NoSuchBucket", MissingError, "the bucket does not exist", command("infra", "up")),
    Row(
        "NoSuchKey NoSuchUpload NoSuchVersion NoSuchEntity ResourceNotFound ResourceNotFoundException"
        " RepositoryNotFoundException ImageNotFoundException StackNotFoundException ChangeSetNotFound"
        " ChangeSetNotFoundException ObjectNotFoundException NotFoundException NotFound 404",
        MissingError, "it does not exist", _INFRA),
    Row(_INVALID, MissingError, "it does not exist", _INFRA, _MISSING),
    Row(
        "ResourceInUse ResourceInUseException AlreadyExistsException EntityAlreadyExists"
        " RepositoryAlreadyExistsException ImageAlreadyExistsException BucketAlreadyExists"
        " BucketAlreadyOwnedByYou PreconditionFailed ConditionalRequestConflict ConflictException"
        " OperationAborted InvalidChangeSetStatus InvalidChangeSetStatusException TokenAlreadyExistsException"
        " OperationInProgressException ConcurrentUpdateException ResourceConflict 409 412",
        ConflictError, "it already exists, or somebody else is changing it", "look at what exists, then try again"),
    Row(
        f"{_INVALID} ParamValidationError InvalidParameterException InvalidParameterValue InvalidParameter"
        " InvalidParameterCombination InvalidInput InvalidInputException MalformedPolicyDocument MissingParameter"
        " InvalidRequest InvalidBucketName InvalidArgument InvalidRequestException EntityTooLarge",
        SpecError, "AWS does not accept the request", "fix what it names and try again"),
    Row(
        "413 RequestEntityTooLarge RequestEntityTooLargeException",
        SpecError, "the request is larger than the service takes",
        "send smaller pictures, or deploy with --mode async"),
    Row(
        "ModelError 424",
        EndpointError, "the server has too many images waiting", f"try again in a minute, or: {_SCALE}",
        r"error \(429\)", retry_after=_BUSY_SECONDS),
    Row(
        "ModelError 424",
        EndpointError, "the server does not accept the request", "fix what it names and try again",
        r"error \(4(00|06|13|22)\)"),
    Row(
        "ModelError 424",
        EndpointError, "the server cannot use the adapter", _ENDPOINT_LOGS, r"error \((424|507)\)"),
    Row(
        "ModelError 424",
        EndpointError, "the server did not answer within a minute",
        "ask for fewer images or steps, or deploy with --mode async", r"timed out|error \(504\)"),
    Row(
        "ModelError 424",
        EndpointError, "the server takes no requests now", _LATER, r"error \(503\)", retry_after=_BUSY_SECONDS),
    Row("ModelError 424", EndpointError, "the server failed", _ENDPOINT_LOGS),
    Row(
        "ModelNotReadyException",
        ServiceError, "the endpoint is not ready", _LATER, retry_after=_BUSY_SECONDS),
    Row(
        "FailedResourceAccessException",
        AccessError, "Application Auto Scaling may not see to the alarms of the endpoint", _INFRA),
    Row(
        "Throttling ThrottlingException ThrottledException RequestThrottled RequestThrottledException"
        " SlowDown TooManyRequestsException RequestLimitExceeded BandwidthLimitExceeded"
        " ProvisionedThroughputExceededException TransactionInProgressException PriorRequestNotComplete"
        " EC2ThrottledException 429 CapacityNotAvailableError",
        ServiceError, "too many requests: AWS throttles this account", _LATER, retry_after=_BUSY_SECONDS),
    Row(
        "BadDigest InvalidDigest XAmzContentSHA256Mismatch XAmzContentChecksumMismatch FlexibleChecksumError"
        " ChecksumError IncompleteBody IncompleteReadError ResponseStreamingError",
        ServiceError, "the bytes were damaged or cut off in transit", _LATER),
    Row(
        "SSLError",
        MachineError, "the certificate of the service is not trusted",
        "behind a company proxy, set AWS_CA_BUNDLE to its certificate file"),
    Row(
        "ResponseParserError",
        MachineError, "the answer does not come from AWS", "check AWS_ENDPOINT_URL and this network's proxy"),
    Row("ProxyConnectionError", MachineError, "the proxy does not answer", "check HTTPS_PROXY"),
    Row(
        "EndpointConnectionError ConnectionError",
        ServiceError, "the service cannot be reached", "check the network, AWS_REGION and AWS_ENDPOINT_URL"),
    Row("ConnectTimeoutError", ServiceError, "the service cannot be reached", "check the network"),
    Row(
        "ReadTimeoutError ConnectionClosedError HTTPClientError RequestTimeout RequestTimeoutException"
        " WaiterError",
        ServiceError, "no answer came", _LATER),
    Row(
        "InternalError InternalFailure InternalServerError InternalServerException InternalException"
        " ServerException ServiceUnavailable ServiceUnavailableException ServiceFailure InternalServiceException"
        " InternalServiceError InternalServiceFault InternalDependencyException 500 502 503 504 530",
        ServiceError, "the service itself failed", "try again in a minute; see https://health.aws.amazon.com"),
    Row("MissingDependencyException", MachineError, "a package is missing", "pip install 'botocore[crt]'"),
)
# fmt: on

REST = Row("BotoCoreError", AccountError, "the AWS SDK refused", "check the AWS configuration: aws configure list")


def error_for(failure: Failure, doing: str, *, not_found: str = "") -> OrchestratorError:
    """Return our error for a failure while `doing` ("submit the job").

    `not_found` is the next command when what the request names does not exist.
    """
    row = find_row(failure)
    if failure.answer_lost and row.error is not ConflictError:  # a conflict means that it exists: no doubt
        row = Row("", LostAnswerError, "no answer came, and it may have succeeded nevertheless", row.next_step)
    facts = _Facts(_facts(failure))
    cause = row.cause.format_map(facts)
    next_step = row.next_step.format_map(facts)
    if not_found and row.error is MissingError:
        next_step = not_found
    error = row.error(f"Could not {doing}: {cause}. {_evidence(failure)}", next_step=next_step)
    error.code = failure.names[0]
    error.retry_after = row.retry_after
    return error


def find_row(failure: Failure) -> Row:
    """Return the row for a failure: that of its first name with a row."""
    for name in failure.names:
        for row in TABLE:
            if name in row.names.split() and _applies(row, failure):
                return row
    return REST if failure.status == 0 else _by_status(failure.status)


def _applies(row: Row, failure: Failure) -> bool:
    right_service = not row.service or row.service == failure.service
    return right_service and (not row.pattern or re.search(row.pattern, failure.message, re.IGNORECASE) is not None)


def _by_status(status: int) -> Row:
    if status >= 500:  # noqa: PLR2004  (HTTP: an error of the server)
        return Row("", ServiceError, "the service itself failed", _LATER)
    return Row("", AccountError, "AWS refused", "see the message of AWS above")


def _evidence(failure: Failure) -> str:
    """Return code and message of a failure in parentheses, the message as one line."""
    code = failure.names[0]
    message = " ".join(failure.message.split())[:_LONGEST_EVIDENCE]
    if not message:
        return f"({code})"
    return f"({code}: {message})"


class _Facts(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return f"({key} unknown)"


def _facts(failure: Failure) -> dict[str, str]:
    """Return the values for the placeholders in the table's texts."""
    quota = ""
    quota_name = ""
    limit = re.search(r"limit '([\w .()-]+)' is (\d+)", failure.message)
    if limit is not None:
        quota_name = limit[1]
        quota = f' "{quota_name}" is {limit[2]} and'
    facts = {
        "action": _action(failure),
        "quota": quota,
        "raise_quota": _raise_quota(failure.message, quota_name, failure.region),
    }
    if failure.region:
        facts["region"] = failure.region
    return facts


def _action(failure: Failure) -> str:
    """Return the IAM action that was refused: the one in the message, else that of the operation."""
    refused = re.search(r"not authorized to perform:? ([\w-]+:\w+)", failure.message)
    if refused is not None:
        return refused[1]
    operation = _S3_ACTIONS.get(failure.operation, failure.operation)
    if failure.service:
        return f"{failure.service}:{operation}"
    return operation or "this"


def _raise_quota(message: str, name: str, region: str) -> str:
    """Return the command that requests a higher quota, or the web page for it when the quota's name is unknown."""
    if not name:
        return "raise the quota at https://console.aws.amazon.com/servicequotas"
    wanted = sum(int(number) for number in re.findall(r"(?:utilization of|delta of) (\d+)", message))
    return raise_quota(name, wanted, region)


def raise_quota(name: str, wanted: int, region: str) -> str:
    """Return the command that requests a higher quota of SageMaker, by its name in the Service Quotas console."""
    where = f" --region {region}" if region else ""
    query = shlex.quote(f"Quotas[?QuotaName=='{name}'].QuotaCode")
    code = f"aws service-quotas list-service-quotas --service-code sagemaker --query {query} --output text{where}"
    return (
        "aws service-quotas request-service-quota-increase --service-code sagemaker"
        f' --desired-value {max(wanted, 1)}{where} --quota-code "$({code})"'
    )
