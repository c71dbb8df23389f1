"""Writes a request as botocore would, and prints it as JSON: method, path, target and body.

Usage: serialize.py ENDPOINT SERVICE OPERATION PARAMETERS, where PARAMETERS is JSON.
"""

import json
import sys

import botocore.session

_, _, service, operation, parameters = sys.argv
model = botocore.session.get_session().get_service_model(service)
# A service may speak several; CBOR is one that the function does not.
spoken = model.metadata.get("protocols", [model.metadata["protocol"]])
protocol = next(it for it in ("query", "json", "rest-json") if it in spoken)
serializer = botocore.serialize.create_serializer(protocol)
request = serializer.serialize_to_request(json.loads(parameters), model.operation_model(operation))
body = request["body"]
print(
    json.dumps(
        {
            "method": request["method"],
            "path": request["url_path"],
            "target": request["headers"].get("X-Amz-Target"),
            "body": body.decode() if isinstance(body, bytes) else body,
        }
    )
)
