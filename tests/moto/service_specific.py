"""Makes, lists and deletes a key of Bedrock by botocore, and prints what it reads of the answers.

Usage: service_specific.py ENDPOINT URL USER, where URL is the one that is asked.
"""

import json
import sys

import boto3

_, _, url, user = sys.argv
iam = boto3.client("iam", endpoint_url=url, region_name="us-east-1")
service = "bedrock.amazonaws.com"
made = iam.create_service_specific_credential(UserName=user, ServiceName=service, CredentialAgeDays=90)
made = made["ServiceSpecificCredential"]
listed = iam.list_service_specific_credentials(UserName=user, ServiceName=service)["ServiceSpecificCredentials"]
key = {"UserName": user, "ServiceSpecificCredentialId": made["ServiceSpecificCredentialId"]}
iam.update_service_specific_credential(**key, Status="Inactive")
iam.delete_service_specific_credential(**key)
print(json.dumps({"made": made, "listed": listed}, default=str))
