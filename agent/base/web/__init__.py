"""The HTTP server of agent and central: asyncio and h11, hard limits, no threads.

app = App()
app.route("/healthz", lambda request: text("ok"))
server = Server(app)
server.listen("127.0.0.1", 9840)
server.start()                      # in a running event loop
"""

from agent.base.web.address import format_address, parse_address
from agent.base.web.app import App
from agent.base.web.message import Handler, HttpError, Request, Response, as_json, page, text
from agent.base.web.secure import WebSecurity
from agent.base.web.server import Guard, Limits, Server, holder

__all__ = [
    "App",
    "Guard",
    "Handler",
    "HttpError",
    "Limits",
    "Request",
    "Response",
    "Server",
    "WebSecurity",
    "as_json",
    "format_address",
    "holder",
    "page",
    "parse_address",
    "text",
]
