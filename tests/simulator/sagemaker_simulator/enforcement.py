"""Puts the policies that moto's IAM holds in force, for every service that is asked.

moto's own enforcement (`moto.core.enable_iam_authentication`) tells who calls and refuses whom it does not know.
Whether policies allow it is decided here: with resource, conditions, a bucket's key and a bucket's own policy.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

from . import principals
from .policies import Access


@contextmanager
def enforce_policies() -> Iterator[None]:
    """Refuse what no policy allows, from now on, to everybody."""
    from moto import settings
    from moto.core.authorization import ActionAuthenticatorMixin
    from moto.iam.access_control import PermissionResult
    from moto.s3.models import FakeBucket

    with (
        patch.object(settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0),
        patch.object(ActionAuthenticatorMixin, "_authenticate_and_authorize_action", _authorize),
        # moto applies a bucket's denials whatever their conditions say; they are applied in `principals`
        patch.object(FakeBucket, "get_permission", lambda *_: PermissionResult.NEUTRAL),
    ):
        yield


def _authorize(response: Any, request_class: Any, resource: str = "*") -> None:
    """Take the place of moto's method: raises what moto raises."""
    url = urlsplit(response.uri)
    asked = request_class(
        account_id=response.current_account,
        method=response.method,
        path=f"{response.raw_path}?{url.query}" if url.query else response.raw_path,
        data=response.data,
        body=response.raw_body,
        headers=response.headers,
        action=response._get_action(),
    )
    asked.check_signature()
    if asked._action == "sts:GetCallerIdentity":  # nobody can be kept from it
        return
    principal = principals.of_access_key(asked._access_key)
    for access in _accesses(response, asked, resource):
        if not principals.may(principal, access):
            _refuse(asked, access)


def _refuse(asked: Any, access: Access) -> None:
    """Raise what the service says: S3 gives its reasons to callers of the bucket's own account."""
    from moto.s3.exceptions import S3ClientError

    if asked._service != "s3":
        asked._raise_access_denied()
    message = (
        f"User: {asked._access_key.arn} is not authorized to perform: {access.action} on resource: "
        f'"{access.resource}" because no policy allows the {access.action} action'
    )
    raise S3ClientError("AccessDenied", message)


def _accesses(response: Any, asked: Any, resource: str) -> Iterator[Access]:
    service = asked._service
    here = f"arn:aws:{service}:{asked._region}:{asked.account_id}"
    if service == "s3":
        yield from _of_s3(response, asked, resource)
    elif service == "logs":
        about = json.loads(asked._body)
        group, stream = about.get("logGroupName", ""), about.get("logStreamName", "")
        yield Access(asked._action, f"{here}:log-group:{group}:log-stream:{stream}")
    elif service == "ecr" and "repositoryName" in (about := json.loads(asked._body)):
        yield Access(asked._action, f"{here}:repository/{about['repositoryName']}")
    elif service == "iam" and "RoleName" in response.querystring:
        yield Access(asked._action, f"arn:aws:iam::{asked.account_id}:role/{response.querystring['RoleName'][0]}")
    elif service == "application-autoscaling":
        about = json.loads(asked._body)
        yield Access(asked._action, "*", {f"{service}:service-namespace": about.get("ServiceNamespace", "")})
    elif service == "monitoring":  # policies call CloudWatch by its newer name
        action = asked._action.replace(service, "cloudwatch")
        alarms = [f"{here}:alarm:{name}" for name in _alarms(json.loads(asked._body))]
        for alarm in alarms or ["*"]:
            yield Access(action, alarm.replace(service, "cloudwatch"))
    elif service == "sqs":
        name = json.loads(asked._body)["QueueUrl"].rpartition("/")[2]
        yield Access(asked._action, f"{here}:{name}")
    elif service == "cloudformation":
        name = response.querystring.get("StackName", ["*"])[0]
        yield Access(asked._action, name if name.startswith("arn:") else f"{here}:stack/{name}/*")
    else:
        yield Access(asked._action)


def _alarms(about: dict[str, Any]) -> list[str]:
    """Return the names of the alarms that a call is about."""
    return [*about.get("AlarmNames", []), *([about["AlarmName"]] if "AlarmName" in about else [])]


def _of_s3(response: Any, asked: Any, resource: str) -> Iterator[Access]:
    secure = urlsplit(response.uri).scheme == "https"
    context = {"aws:SecureTransport": str(secure).lower()} | ({"s3:TlsVersion": "1.3"} if secure else {})
    context |= _of_writing(response)
    prefix = response.querystring.get("prefix", [None])[0]
    yield Access(asked._action, resource, context if prefix is None else {**context, "s3:prefix": prefix})
    name, _, key = resource.rpartition(":::")[2].partition("/")
    bucket = response.backend.buckets.get(name)
    if bucket is None or not key:
        return
    if asked._action == "s3:GetObject" and key not in bucket.keys:  # else it is not said that there is no such object
        yield Access("s3:ListBucket", resource.removesuffix(f"/{key}"), context)
        return
    if kms_key := _key(response, bucket):
        via = {"kms:ViaService": f"s3.{asked._region}.amazonaws.com"}
        for action in _kms_actions(response):
            yield Access(action, kms_key, via)


def _of_writing(response: Any) -> dict[str, str]:
    """Return the keys of conditions on what is written.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes-enforce.html
    """
    query = response.querystring
    completes = response.method == "POST" and "uploadId" in query
    stores = response.method == "PUT" and "partNumber" not in query
    context = {"s3:ObjectCreationOperation": str(completes or stores).lower()}
    condition = response.headers.get("If-None-Match")
    return context if condition is None else {**context, "s3:if-none-match": condition}


def _key(response: Any, bucket: Any) -> str | None:
    """Return the key an object of the bucket is encrypted with: as the request says, else as the bucket does."""
    if asked := response.headers.get("x-amz-server-side-encryption-aws-kms-key-id"):
        return str(asked)
    rule = (bucket.encryption or {}).get("Rule", {}).get("ApplyServerSideEncryptionByDefault", {})
    return rule.get("KMSMasterKeyID")


def _kms_actions(response: Any) -> list[str]:
    """Return what S3 does with the key: https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html."""
    query = response.querystring
    match response.method:
        case "GET":
            return ["kms:Decrypt"]
        case "HEAD" if response.headers.get("x-amz-checksum-mode"):
            return ["kms:Decrypt"]
        case "PUT" if "partNumber" in query:
            return ["kms:Decrypt"]
        case "PUT":
            return ["kms:GenerateDataKey"]
        case "POST" if "uploads" in query:
            return ["kms:GenerateDataKey"]
    return []
