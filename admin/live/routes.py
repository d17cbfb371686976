"""Live updates: for staff."""

from admin import PREFIX
from admin.live import socket
from handlers.operations import Route

ROUTES = (Route(f"{PREFIX}/live", socket.Live, "Staff: cases"),)
