"""Changing moto's XML replies. Names are given without EC2's namespace, which every element has."""

from xml.etree import ElementTree

ElementTree.register_namespace("", "http://ec2.amazonaws.com/doc/2016-11-15")
Element = ElementTree.Element


def parse(reply: bytes) -> Element:
    """The reply's root. Only for what moto wrote: no stranger's document is parsed."""
    return ElementTree.fromstring(reply)


def dump(root: Element) -> bytes:
    """The reply again."""
    text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return text


def all_named(root: Element, name: str) -> list[Element]:
    """Elements of that name below the root, at any depth."""
    return root.findall(f".//{{*}}{name}")


def items_of(root: Element, name: str) -> list[Element]:
    """Items of the sets of that name."""
    return [item for group in all_named(root, name) for item in group]


def text(element: Element, name: str) -> str:
    """Text of a child, "" if there is none."""
    return element.findtext(f"{{*}}{name}") or ""


def put(element: Element, name: str, value: str) -> None:
    """Set the text of a child, which is made if needed."""
    child = element.find(f"{{*}}{name}")
    if child is None:
        child = ElementTree.SubElement(element, element.tag.rpartition("}")[0] + "}" + name)
    child.text = value


def drop(element: Element, name: str) -> None:
    """Remove a child."""
    child = element.find(f"{{*}}{name}")
    if child is not None:
        element.remove(child)
