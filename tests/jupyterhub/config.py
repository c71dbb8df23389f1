"""A hub for tests: in the folder it is started in, on the port in PORT, without a proxy and without servers of users."""

import os

from jupyterhub.proxy import Proxy


class NoProxy(Proxy):
    """Clients of the API speak to the hub itself."""

    should_start = False

    async def add_route(self, routespec, target, data):
        pass

    async def delete_route(self, routespec):
        pass

    async def get_all_routes(self):
        return {}


c = get_config()  # noqa: F821
c.JupyterHub.proxy_class = NoProxy
c.JupyterHub.hub_bind_url = f"http://127.0.0.1:{os.environ['PORT']}"
c.JupyterHub.db_url = "sqlite:///hub.sqlite"
c.JupyterHub.cookie_secret_file = "cookie"
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.JupyterHub.services = [{"name": "rotator", "api_token": os.environ["ADMIN_TOKEN"]}]
c.JupyterHub.load_roles = [
    {"name": "rotator", "services": ["rotator"], "scopes": ["admin:users", "tokens"]},
]
