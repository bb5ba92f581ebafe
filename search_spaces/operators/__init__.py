"""Operators that a space file may name.

To add one to this package: write its module and its record in a file of this folder, and add the record to the tuple
below. To add one without a change of this package, name its file under `modules` in a space file
(`docs/operators.md`).
"""

from search_spaces.operators.carafe import CARAFE_RECORD
from search_spaces.operators.cbam import CBAM_RECORD
from search_spaces.operators.coord_att import COORD_ATT_RECORD
from search_spaces.operators.dcnv4 import DCNV4_RECORD
from search_spaces.operators.dsconv import DSCONV_RECORD
from search_spaces.operators.dynamic_conv import DYNAMIC_CONV_RECORD
from search_spaces.operators.dysample import DYSAMPLE_RECORD
from search_spaces.operators.eca import ECA_RECORD
from search_spaces.operators.ema import EMA_RECORD
from search_spaces.operators.gam import GAM_RECORD
from search_spaces.operators.ghost_module import GHOST_MODULE_RECORD
from search_spaces.operators.gsconv import GSCONV_RECORD
from search_spaces.operators.lska import LSKA_RECORD
from search_spaces.operators.mmqa import MMQA_RECORD
from search_spaces.operators.pconv import PCONV_RECORD
from search_spaces.operators.record import Operator, Parameter, Parameters, Site, SiteKind, Source, Value
from search_spaces.operators.repvgg import REPVGG_RECORD
from search_spaces.operators.se import SE_RECORD
from search_spaces.operators.shuffle_attention import SHUFFLE_ATTENTION_RECORD
from search_spaces.operators.simam import SIMAM_RECORD
from search_spaces.operators.spd_conv import SPD_CONV_RECORD
from search_spaces.operators.sppcspc import SPPCSPC_RECORD
from search_spaces.operators.uib import UIB_RECORD
from search_spaces.operators.vovgscsp import VOVGSCSP_RECORD
from search_spaces.operators.weighted_fusion import WEIGHTED_FUSION_RECORD

_RECORDS = (
    UIB_RECORD,
    MMQA_RECORD,
    DCNV4_RECORD,
    DYNAMIC_CONV_RECORD,
    DYSAMPLE_RECORD,
    # Attention that is inserted.
    SE_RECORD,
    ECA_RECORD,
    CBAM_RECORD,
    COORD_ATT_RECORD,
    SIMAM_RECORD,
    EMA_RECORD,
    GAM_RECORD,
    SHUFFLE_ATTENTION_RECORD,
    LSKA_RECORD,
    # Convolutions and blocks of them.
    PCONV_RECORD,
    GSCONV_RECORD,
    GHOST_MODULE_RECORD,
    REPVGG_RECORD,
    DSCONV_RECORD,
    VOVGSCSP_RECORD,
    # Downsampling, upsampling, pyramids, fusions.
    SPD_CONV_RECORD,
    CARAFE_RECORD,
    SPPCSPC_RECORD,
    WEIGHTED_FUSION_RECORD,
)

OPERATORS: dict[str, Operator] = {record.name: record for record in _RECORDS}
"""By name; `search_spaces.operators.modules` adds those of users' files and of installed packages."""

__all__ = ["OPERATORS", "Operator", "Parameter", "Parameters", "Site", "SiteKind", "Source", "Value"]
