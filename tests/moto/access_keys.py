"""IAM users in moto and their keys. Usage: access_keys.py ENDPOINT COMMAND …; see below."""

import sys

import boto3

endpoint, command, *arguments = sys.argv[1:]
iam = boto3.client("iam", endpoint_url=endpoint, region_name="us-east-1")
if command == "user":
    iam.create_user(UserName=arguments[0], Path="/apps/")
if command in ("user", "key"):
    key = iam.create_access_key(UserName=arguments[0])["AccessKey"]
    print(key["AccessKeyId"], key["SecretAccessKey"])
elif command == "list":
    keys = iam.list_access_keys(UserName=arguments[0])["AccessKeyMetadata"]
    print(*(key["AccessKeyId"] for key in keys if key["Status"] == "Active"))
elif command == "delete":
    iam.delete_access_key(UserName=arguments[0], AccessKeyId=arguments[1])
elif command == "delete-user":
    for key in iam.list_access_keys(UserName=arguments[0])["AccessKeyMetadata"]:
        iam.delete_access_key(UserName=arguments[0], AccessKeyId=key["AccessKeyId"])
    iam.delete_user(UserName=arguments[0])
elif command == "use":
    session = boto3.Session(aws_access_key_id=arguments[0], aws_secret_access_key=arguments[1])
    print(session.client("sts", endpoint_url=endpoint, region_name="us-east-1").get_caller_identity()["Arn"])
