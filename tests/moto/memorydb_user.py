"""A user of MemoryDB in moto: create PASSWORD, or count, which prints how many passwords it has."""

import sys

import boto3

memorydb = boto3.client("memorydb", endpoint_url=sys.argv[1])
if sys.argv[2] == "create":
    authentication = {"Type": "password", "Passwords": [sys.argv[3]]}
    memorydb.create_user(UserName="app-id", AuthenticationMode=authentication, AccessString="on ~* +@all")
else:
    (user,) = memorydb.describe_users(UserName="app-id")["Users"]
    print(user["Authentication"]["PasswordCount"])
