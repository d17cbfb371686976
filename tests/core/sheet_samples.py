"""Workbooks made part by part, so that they can say what no spreadsheet program writes."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape, quoteattr

_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_STRICT = {_MAIN: "http://purl.oclc.org/ooxml/spreadsheetml/main"}
_STRICT |= {_RELATIONS: "http://purl.oclc.org/ooxml/officeDocument/relationships"}
_PACKAGE = "http://schemas.openxmlformats.org/package/2006/relationships"

DATE, PADDED = 1, 2
"""Styles of :func:`cell`: a date with a time, and a number shown with five digits."""
_STYLES = (
    '<numFmts count="1"><numFmt numFmtId="164" formatCode="00000"/></numFmts>'
    '<cellXfs><xf numFmtId="0"/><xf numFmtId="22"/><xf numFmtId="164"/></cellXfs>'
)


def cell(reference: str, value: Any = None, kind: str = "", style: int = 0, formula: str = "") -> str:
    """One cell. A text without ``kind`` is an inline one."""
    attributes = f" r={quoteattr(reference)}" + (f' s="{style}"' if style else "")
    if isinstance(value, str) and not kind:
        return f'<c{attributes} t="inlineStr"><is><t>{escape(value)}</t></is></c>'
    inside = (f"<f>{formula}</f>" if formula else "") + ("" if value is None else f"<v>{escape(str(value))}</v>")
    return f"<c{attributes}{f' t={quoteattr(kind)}' if kind else ''}>{inside}</c>"


def row(line: int, *values: Any) -> str:
    """A row of values from column A on; a text that begins with ``<`` is a cell as it stands."""
    cells = [
        v if isinstance(v, str) and v.startswith("<") else cell(f"{chr(65 + n)}{line}", v)
        for n, v in enumerate(values)
        if v is not None
    ]
    return f'<row r="{line}">{"".join(cells)}</row>'


def book(
    *rows: str,
    more: Sequence[tuple[str, str, str]] = (),
    shared: str | None = None,
    dimension: str = "",
    prolog: str = "",
    strict: bool = False,
    merges: Sequence[str] = (),
) -> bytes:
    """A workbook whose first sheet has ``rows``. ``more`` are sheets: name, rows, state (visible, hidden). ``prolog``
    stands before each sheet's first element. In each sheet, ``merges`` (``A1:B2``) are merged cells."""
    sheets = [("Sheet1", "".join(rows), "visible"), *more]
    names = "".join(
        f'<sheet name={quoteattr(name)} sheetId="{n}" state="{state}" r:id="rId{n}"/>'
        for n, (name, _, state) in enumerate(sheets, 1)
    )
    parts = {
        "[Content_Types].xml": _content_types(len(sheets), shared is not None),
        "_rels/.rels": f'<Relationships xmlns="{_PACKAGE}"><Relationship Id="rId1" Type="{_RELATIONS}/officeDocument" '
        'Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{_MAIN}" xmlns:r="{_RELATIONS}"><sheets>{names}</sheets></workbook>',
        "xl/styles.xml": f'<styleSheet xmlns="{_MAIN}">{_STYLES}</styleSheet>',
    }
    related = [(f"rId{n}", "worksheet", f"worksheets/sheet{n}.xml") for n in range(1, len(sheets) + 1)]
    related.append(("rId90", "styles", "styles.xml"))
    if shared is not None:
        parts["xl/sharedStrings.xml"] = f'<sst xmlns="{_MAIN}">{shared}</sst>'
        related.append(("rId91", "sharedStrings", "sharedStrings.xml"))
    parts["xl/_rels/workbook.xml.rels"] = (
        f'<Relationships xmlns="{_PACKAGE}">'
        + "".join(f'<Relationship Id="{i}" Type="{_RELATIONS}/{t}" Target="{to}"/>' for i, t, to in related)
        + "</Relationships>"
    )
    for n, (_, data, _) in enumerate(sheets, 1):
        said = f"<dimension ref={quoteattr(dimension)}/>" if dimension else ""
        merged = "".join(f"<mergeCell ref={quoteattr(reference)}/>" for reference in merges)
        parts[f"xl/worksheets/sheet{n}.xml"] = (
            f'{prolog}<worksheet xmlns="{_MAIN}">{said}<sheetData>{data}</sheetData>'
            f"{f'<mergeCells>{merged}</mergeCells>' if merged else ''}</worksheet>"
        )
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, text in parts.items():
            for usual, other in _STRICT.items() if strict else ():
                text = text.replace(usual, other)
            packed.writestr(name, text)
    return out.getvalue()


def _content_types(sheets: int, shared: bool) -> str:
    kinds = {"workbook.xml": "sheet.main", "styles.xml": "styles"}
    kinds |= {f"worksheets/sheet{n}.xml": "worksheet" for n in range(1, sheets + 1)}
    kinds |= {"sharedStrings.xml": "sharedStrings"} if shared else {}
    said = "".join(
        f'<Override PartName="/xl/{part}" '
        f'ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.{kind}+xml"/>'
        for part, kind in kinds.items()
    )
    rels = '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    return f'<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">{rels}{said}</Types>'
