"""An SMTP server with the users of SES: access keys in moto, with the passwords that AWS's documentation computes of them.

Usage: server.py MOTO REGION PORT CERTIFICATE KEY REPLIES. TLS from the first byte on. The file REPLIES has, one a line, what
to answer to the next sign-ins instead of looking; it is gone when they are answered. The log of commands goes to stdout.
"""

import asyncio
import base64
import hashlib
import hmac
import json
import pathlib
import ssl
import sys
import urllib.request

from aiosmtpd.smtp import SMTP, AuthResult

moto, region, port, certificate, key, replies = sys.argv[1:]


def password(secret):
    signature = ("AWS4" + secret).encode()
    for text in ("11111111", region, "ses", "aws4_request", "SendRawEmail"):
        signature = hmac.new(signature, text.encode(), hashlib.sha256).digest()
    return base64.b64encode(b"\x04" + signature).decode()


def known(user, given):
    with urllib.request.urlopen(f"{moto}/moto-api/data.json") as answer:
        keys = json.load(answer)["iam"]["AccessKey"]
    return any(
        it["access_key_id"] == user and it["status"] == "Active" and password(it["secret_access_key"]) == given
        for it in keys
    )


def scripted():
    file = pathlib.Path(replies)
    if not file.exists():
        return None
    first, *rest = file.read_text().splitlines()
    file.write_text("\n".join(rest)) if rest else file.unlink()
    return first


class Handler:
    async def handle_QUIT(self, server, session, envelope):
        print("QUIT", flush=True)
        return "221 Bye"


def authenticate(server, session, envelope, mechanism, data):
    user, given = data.login.decode(), data.password.decode()
    said = scripted()
    if said is None and not known(user, given):
        said = "535 Authentication Credentials Invalid"
    print(mechanism, user, said or "235", flush=True)
    return AuthResult(success=said is None, handled=False, message=said)


async def main():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def session():
        # It knows of no TLS but that of STARTTLS.
        return SMTP(Handler(), authenticator=authenticate, auth_require_tls=False, hostname="smtp.example.com")

    server = await asyncio.get_running_loop().create_server(session, "127.0.0.1", int(port), ssl=context)
    await server.serve_forever()


asyncio.run(main())
