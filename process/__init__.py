"""What any server process needs: workers, a health check, secrets in files, messages."""

from process.burden import Burden, Burdened
from process.cores import control_groups, usable_cores
from process.healthcheck import check_health
from process.init import leave_process_1
from process.memory import give_memory_back
from process.messages import fail, one_line
from process.password import PasswordFile, password_file
from process.signals import STOP_SIGNALS, Stopping, sleep
from process.standard_error import StandardError, take_standard_error
from process.systemd import inherited_sockets, notify
from process.tls import Certificate
from process.workers import Workers

__all__ = [
    "STOP_SIGNALS",
    "Burden",
    "Burdened",
    "Certificate",
    "PasswordFile",
    "StandardError",
    "Stopping",
    "Workers",
    "check_health",
    "control_groups",
    "fail",
    "give_memory_back",
    "inherited_sockets",
    "leave_process_1",
    "notify",
    "one_line",
    "password_file",
    "sleep",
    "take_standard_error",
    "usable_cores",
]
