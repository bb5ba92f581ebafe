"""Operators that a space file may name.

To add one to this package: write its module and its record in a file of this folder, and add the record to the tuple
below. To add one without a change of this package, name its file under `modules` in a space file
(`docs/operators.md`).
"""

from search_spaces.operators.dcnv4 import DCNV4_RECORD
from search_spaces.operators.dynamic_conv import DYNAMIC_CONV_RECORD
from search_spaces.operators.dysample import DYSAMPLE_RECORD
from search_spaces.operators.mmqa import MMQA_RECORD
from search_spaces.operators.record import Operator, Parameter, Parameters, Site, SiteKind, Source, Value
from search_spaces.operators.uib import UIB_RECORD

_RECORDS = (UIB_RECORD, MMQA_RECORD, DCNV4_RECORD, DYNAMIC_CONV_RECORD, DYSAMPLE_RECORD)

OPERATORS: dict[str, Operator] = {record.name: record for record in _RECORDS}
"""By name; `search_spaces.operators.modules` adds those of users' files and of installed packages."""

__all__ = ["OPERATORS", "Operator", "Parameter", "Parameters", "Site", "SiteKind", "Source", "Value"]
