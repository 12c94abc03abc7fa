"""nwfilters that keep a guest from using addresses that are not its own. Parameters: IP and IPV6, lists of its addresses.

One filter per set of families, because libvirt refuses a rule whose parameter is not given. Names carry a version: a filter is
never changed under running guests. What comes in is let through; what goes out must bear the guest's MAC and one of its addresses.
Not for: security groups. A guest's claims in IPv6 neighbour discovery are checked by source address only.
"""

from __future__ import annotations

import ipaddress
import uuid
from collections.abc import Iterable
from typing import Any

from hullwright.drivers.libvirt_binding import is_gone, load_libvirt

VERSION = 1
_NAMESPACE = uuid.UUID("7c1f4d0e-5a0b-4a53-9d83-2f8f4f0f6f11")  # makes a filter's uuid from its name

_MAC = """
  <rule action='drop' direction='out' priority='10'><mac match='no' srcmacaddr='$MAC'/></rule>"""
_IPV4 = """
  <rule action='drop' direction='out' priority='20'><ip protocol='udp' srcportstart='67' dstportstart='68'/></rule>
  <rule action='accept' direction='out' priority='30'>
    <ip srcipaddr='0.0.0.0' dstipaddr='255.255.255.255' protocol='udp' srcportstart='68' dstportstart='67'/>
  </rule>
  <rule action='accept' direction='out' priority='40'><ip srcipaddr='$IP'/></rule>
  <rule action='accept' direction='out' priority='50'><arp arpsrcmacaddr='$MAC' arpsrcipaddr='$IP'/></rule>
  <rule action='accept' direction='out' priority='51'><arp arpsrcmacaddr='$MAC' arpsrcipaddr='0.0.0.0'/></rule>"""
_IPV6 = """
  <rule action='drop' direction='out' priority='60'><ipv6 protocol='icmpv6' type='134'/></rule>
  <rule action='drop' direction='out' priority='61'><ipv6 protocol='udp' srcportstart='547' dstportstart='546'/></rule>
  <rule action='accept' direction='out' priority='70'><ipv6 srcipaddr='fe80::' srcipmask='10'/></rule>
  <rule action='accept' direction='out' priority='71'><ipv6 srcipaddr='::' srcipmask='128' protocol='icmpv6'/></rule>
  <rule action='accept' direction='out' priority='72'><ipv6 srcipaddr='$IPV6'/></rule>"""
# QEMU tells switches where the guest is by RARP. All else goes out only from a guest without addresses of ours.
_REST = """
  <rule action='accept' direction='out' priority='80'>
    <rarp opcode='Request_Reverse' srcmacaddr='$MAC' arpsrcmacaddr='$MAC' arpdstmacaddr='$MAC'
          arpsrcipaddr='0.0.0.0' arpdstipaddr='0.0.0.0'/>
  </rule>
  <rule action='drop' direction='out' priority='900'><mac/></rule>"""


def choose(addresses: Iterable[str]) -> tuple[str, tuple[tuple[str, str], ...]]:
    """The name of the filter for a port with these addresses, and its parameters."""
    found = sorted((ipaddress.ip_address(address) for address in addresses), key=lambda address: (address.version, int(address)))
    families = "-".join(f"ipv{version}" for version in (4, 6) if any(address.version == version for address in found))
    parameters = tuple(("IP" if address.version == 4 else "IPV6", str(address)) for address in found)
    return f"hullwright-{VERSION}-{families or 'mac'}", parameters


def xml_of(name: str) -> str:
    """The definition of a filter that `choose` named."""
    rules = _MAC
    if "ipv4" in name:
        rules += _IPV4
    if "ipv6" in name:
        rules += _IPV6
    if not name.endswith("-mac"):
        rules += _REST
    return f"<filter name='{name}' chain='root'>\n  <uuid>{uuid.uuid5(_NAMESPACE, name)}</uuid>{rules}\n</filter>"


def ensure(connection: Any, name: str) -> None:
    """Have the filter on the host."""
    libvirt = load_libvirt()
    try:
        connection.nwfilterLookupByName(name)
    except libvirt.libvirtError as error:
        if not is_gone(error):
            raise
        # The uuid is always the same one, so that of several who define it at once all succeed.
        connection.nwfilterDefineXML(xml_of(name))
