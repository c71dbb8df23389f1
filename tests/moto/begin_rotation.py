"""Makes moto hold a secret as Secrets Manager hands it to createSecret: the token with AWSPENDING and no value yet.

Usage: begin_rotation.py ENDPOINT SECRET VALUE TOKEN. moto invokes its own dummy function, which does nothing.
"""

import io
import json
import sys
import urllib.request
import zipfile

import boto3

endpoint, secret, value, token = sys.argv[1:]
settings = json.dumps({"lambda": {"use_docker": False}}).encode()
request = urllib.request.Request(f"{endpoint}/moto-api/config", settings, {"Content-Type": "application/json"})
urllib.request.urlopen(request).close()

client = lambda name: boto3.client(name, endpoint_url=endpoint, region_name="us-east-1")
code = io.BytesIO()
with zipfile.ZipFile(code, "w") as archive:
    archive.writestr("bootstrap", "")
role = client("iam").create_role(RoleName="rotation", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
function = client("lambda").create_function(
    FunctionName="rotation", Runtime="provided.al2023", Handler="bootstrap", Role=role, Code={"ZipFile": code.getvalue()}
)["FunctionArn"]
client("secretsmanager").create_secret(Name=secret, SecretString=value)
client("secretsmanager").rotate_secret(
    SecretId=secret, ClientRequestToken=token, RotationLambdaARN=function, RotationRules={"AutomaticallyAfterDays": 30}
)
