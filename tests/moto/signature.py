"""Signs a request as botocore would, at the time that it names, and prints the header Authorization.

Usage: signature.py ENDPOINT REQUEST, where REQUEST is JSON with service, region, url, headers and body, and may have
method and key.
"""

import json
import sys

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

asked = json.loads(sys.argv[2])
headers = asked["headers"]
signed = headers["authorization"].split("SignedHeaders=")[1].split(",")[0].split(";")
credentials = Credentials(*asked.get("key", ["AKIDEXAMPLE", "secret access key", "session"]))
auth = SigV4Auth(credentials, asked["service"], asked["region"])
kept = {name: headers[name] for name in signed if name != "host"}
request = AWSRequest(asked.get("method", "POST"), asked["url"], data=asked["body"].encode(), headers=kept)
request.context["timestamp"] = headers["x-amz-date"]
to_sign = auth.string_to_sign(request, auth.canonical_request(request))
auth._inject_signature_to_request(request, auth.signature(to_sign, request))
print(request.headers["Authorization"])
