"""The boot script of a node: the same on EC2, where cloud-init runs it, and in the sandbox.

It holds the node's one-time join token, which is why the file is written with umask 077, by a shell builtin (so that no
process list shows it), and why a boot that is not the first leaves it alone.
"""

import json
import shlex
from string import Template

from controlplane.domain.failure import CloudFailure, FailureCode

# EC2's limit, before base64.
MAX_BYTES = 16 * 1024

_SCRIPT = Template("""\
#!/bin/bash
# Written by WAP: tells the agent who it is, then starts it.
set -eu
umask 077
root="$${WAP_ROOT:-}"
export WAP_ROOT="$${root:-/}"
if [ "$${WAP_BOOT:-}" != again ] && [ ! -e "$$root/etc/wap/agent.json" ]; then
  mkdir -p "$$root/etc/wap"
  printf '%s\\n' $config > "$$root/etc/wap/agent.json.new"
  mv "$$root/etc/wap/agent.json.new" "$$root/etc/wap/agent.json"
fi
$boot_command
""")

# For Amazon Linux 2023. KillMode=process: mongod outlives its agent, and inherits its limit of open files. The network
# may need a moment, hence `patiently`.
DEFAULT_BOOT_COMMAND = """\
umask 022
patiently() { for pause in 5 10 20 40 0; do "$@" && return; sleep "$pause"; done; return 1; }
patiently dnf -q -y install python3.11 python3.11-pip
python3.11 -m venv /opt/wap
patiently /opt/wap/bin/pip install --quiet {package}
cat > /etc/systemd/system/wap-agent.service <<'UNIT'
[Unit]
Description=WAP agent
Wants=network-online.target
After=network-online.target
[Service]
ExecStart=/opt/wap/bin/python -m agent --root /
Restart=always
RestartSec=2
KillMode=process
LimitNOFILE=64000
[Install]
WantedBy=multi-user.target
UNIT
systemctl daemon-reload
systemctl enable --now wap-agent.service"""


def default_boot_command(package: str) -> str:
    """The boot command for AWS; `package` is what pip installs: a name, a URL of a wheel, or a path on the image."""
    return DEFAULT_BOOT_COMMAND.replace("{package}", shlex.quote(package))


def render(*, node_id: str, enroll_endpoint: str, ca_pem: str, join_token: str, boot_command: str) -> str:
    """The user data of one node: a bash script of at most 16 KiB. CLOUD_INVALID when it would be longer.

    `boot_command` is shell text by the operator of the installation; everything else is data and is quoted.
    """
    config = {
        "node_id": node_id,
        "enroll_endpoint": enroll_endpoint,
        "ca_pem": ca_pem,
        "join_token": join_token,
    }
    script = _SCRIPT.substitute(config=shlex.quote(json.dumps(config)), boot_command=boot_command)
    size = len(script.encode())
    if size > MAX_BYTES:
        text = f"user data of {size} bytes: EC2 takes {MAX_BYTES}; shorten boot_command or the CA file"
        raise CloudFailure(FailureCode.CLOUD_INVALID, text)
    return script
