"""Names of modules that forks of YOLO add in their own Python, to say in an error what an unknown one is.

Counted in the model files of public repositories. A name says what a module is meant to be, not what its code is: forks
have different code under one name.
"""

import re
from collections.abc import Sequence

_ATTENTION = "an attention"
_CONVOLUTION = "a convolution"
_BLOCK = "a block"
_DOWN = "a downsampling layer"
_UP = "an upsampling layer"
_FUSION = "a fusion of several maps"
_POOLING = "spatial pyramid pooling"
_HEAD = "a head"
_BACKBONE = "a part of another backbone"

_NAMES: dict[str, str] = {
    _ATTENTION: """
        ACmix AFGCAttention BAMBlock BiFormer BiLevelRoutingAttention BRA CA CAA CBAM CoordAtt CoordAttention
        CoTAttention CPCA DAttention DAT DoubleAttention ECA ECAAttention EfficientAttention EffectiveSE
        EffectiveSEModule ELA EMA FocusedLinearAttention GAM GAMAttention GlobalContext GCT HAT LSK LSKA
        LSKBlock LSKBlockSA MHSA MLCA MPCA NAM NAMAttention ParNetAttention PolarizedSelfAttention
        ResidualAttention S2Attention SA SE SEAttention SEBlock SEModule SELayer
        SequentialPolarizedSelfAttention SGE ShuffleAttention SimAM SK SKAttention SpatialGroupEnhance SwinV2
        TripletAttention UFOAttention ULSAM
    """,
    _CONVOLUTION: """
        AKConv AVCSPLAYER BSConvU CoordConv DCN DCNv2 DCNv3 DCNv4 DeformConv2d DSConv DSC DySnakeConv
        DynamicSnakeConv GSConv HetConv Involution KWConv LDConv MixConv2d ODConv PConv PSConv PWConv RefConv
        RepConvN RFAConv RFCAConv RFCBAMConv SAConv ScConv SCConv SnakeConv WTConv2d
    """,
    _BLOCK: """
        BottleneckCSP2 BottleneckCSPF BottleneckCSPLG BottleneckCSPSE C3STR C3RFEM C2PSA2 CBH CNeB ConvNextBlock
        DBB DSC3k DSC3k2 ELAN ELANB Elan FasterBlock FocalModulation HorBlock HyperACE HyperComputeModule iRMB
        LADH MANet MBConvBlock MSBlock OREPA RepBlock RepVGGBlock RepViTBlock RFEM SwinTransformerBlock UIB
        VoVGSCSP VoVGSCSPC WideCSP
    """,
    _DOWN: """
        ADD2 ContextGuidedBlockDown DownC DownSimper DownsampleConv DWT HWD MP MaxPoolConv SPD SPDConv
        SpaceToDepth SRFD V7DownSampling V7DownSampling_x WaveletPool
    """,
    _UP: "CARAFE CARAFE2 DUpsampling DySample_LP EUCB PixelShuffle SAPA WFU",
    _FUSION: """
        Add AdvPoolFusion AFPN ASFF ASFF2 ASFF3 BiFPN BiFPN_Add BiFPN_Add2 BiFPN_Add3 BiFPN_Concat BiFPN_Concat2
        BiFPN_Concat3 BiFPN_Concat4 ChannelAttentionHSFPN Chuncat CCFM CFC_CRB Concat_BiFPN
        ContentGuidedAttentionFusion DASI Foldcut Fusion FullPAD_Tunnel HyperC2Net IFM
        InjectionMultiSum_Auto_pool MSFF PyramidPoolAgg ScalSeq SDFM SDI Shortcut SimFusion_3in SimFusion_4in
        SFC_G2 TopBasicLayer WFConcat Zoom_cat attention_model
    """,
    _POOLING: "ASPP BasicRFB RFB SimCSPSPPF SimSPPF SP SPPCSP SPPCSPC SPPFCSPC SPPF_LSKA SPPF_improve SPPFCSP",
    _HEAD: """
        DDetect DecoupledDetect DecoupledHead Decoupled_Detect Detect_AFPN Detect_ASFF Detect_DyHead Detect_LSCD
        Detect_Efficient DetectAux DetectX DualDSegment DyHead IAuxDetect IBin IDetect IKeypoint ISegment LSCD
        Panoptic TDetect TSCODE_Detect TripleDDetect TripleDetect
    """,
    _BACKBONE: """
        BasicStage ConvBNHswish Conv_BN_HSwish Conv_maxpool conv_bn_relu_maxpool EfficientFormer EfficientNet
        EfficientViT EMO ES_Bottleneck FasterNet GhostNetV2 InvertedResidual LC_Block Lcnet MobileNet
        MobileNetV3 MobileNetV4 MobileNet_Block mobilenet_v3 PatchEmbed PatchEmbed_FasterNet PatchMerging
        PatchMerging_FasterNet PPLCNet RepViT Shuffle_Block ShuffleNetV2 ShuffleNetV2_InvertedResidual StarNet
        stem StemBlock SwinStage SwinTransformer VanillaNet
    """,
}

_OF_TIMM = """
    bat beit botnet caformer cait coat coatnet convformer convit convmixer convnext crossvit cspdarknet cspresnet
    cspresnext darknet davit deit densenet dla dpn ecaresnet ecaresnext edgenext efficientformer efficientnet
    efficientvit eva fasternet fastvit fbnet fbnetc flexivit focalnet gcresnet gcresnext gcvit gernet ghostnet gmixer
    gmlp halonet hardcorenas hgnet hiera hrnet inception lcnet levit mambaout maxvit maxxvit mixer mixnet mnasnet
    mobilenet mobileone mobilevit mvit nasnetalarge nest nextvit nfnet pit pnasnet poolformer pvt rdnet regnetx regnety
    regnetz repghostnet repvgg repvit resmlp resnest resnet resnetaa resnetblur resnetrs resnext rexnet rexnetr samvit
    sebotnet sehalonet selecsls semnasnet sequencer seresnet seresnext shvit skresnet skresnext spnasnet starnet
    swiftformer swin tinynet tnt tresnet twins vgg visformer vit vitamin volo vovnet xception xcit res2net res2next
"""
"""Beginnings of the names of timm's models, `convnext_tiny`; in the forks that have such rows they are functions."""
_TIMM = re.compile(
    rf"(?:(?:tf|gc|eca|dm|ese|nf|wide|tiny|legacy|lambda)_)?(?:{'|'.join(_OF_TIMM.split())})(?:v\d+)?(?:[\d_][a-z\d_]*)?"
)

_HOSTS = "BottleneckCSP|RepNCSPELAN4|C3k2|C2fCIB|C2f|C2PSA|A2C2f|C3k|C3|C2|C1|SPPF|Bottleneck|ELAN"
_CARRYING = re.compile(rf"(?P<host>{_HOSTS})_?(?P<inside>[A-Z]\w*)|(?P<inner>\w+?)_(?P<around>{_HOSTS})")
_DETECTING = re.compile(r"\w*(Detect|Segment|Pose|OBB|DyHead)\w*")

_NAMED_OTHERWISE = {"bifpnconcat": "WeightedFusion", "concatbifpn": "WeightedFusion", "sppfcspc": "SPPCSPC"}
"""Our operators by bare names in forks that are not theirs; a digit behind is the number of maps."""
_SUFFIX = re.compile(r"(attention|attn|layer|block|module)$")
_SHORTEST = 2


def _bare(name: str) -> str:
    """Return a name in small letters, without underscores: forks spell one module in many ways."""
    return name.casefold().replace("_", "").replace("-", "")


_KINDS: dict[str, str] = {_bare(name): kind for kind, names in _NAMES.items() for name in names.split()}


def is_listed(name: str) -> bool:
    """Return whether a name is that of a module that forks have, and no typing error."""
    return _bare(name) in _KINDS


def is_of_timm(name: str) -> bool:
    """Return whether a name is that of a whole network, as timm and forks call them."""
    return _TIMM.fullmatch(name) is not None


def description(name: str) -> str:
    """Return what an unknown module is, such as `an attention`; empty if the name says nothing."""
    if kind := _KINDS.get(_bare(name)):
        return kind
    if found := _CARRYING.fullmatch(name):
        host, inside = found["host"] or found["around"], found["inside"] or found["inner"]
        return f"{'an' if host[0] in 'AE' else 'a'} {host} with {inside} in it"
    return _HEAD if _DETECTING.fullmatch(name) else ""


def same(name: str, ours: Sequence[str]) -> str | None:
    """Return our operator that a fork's name means, such as `SE` for `SELayer`; None if there is none."""
    stem = _SUFFIX.sub("", _bare(name))
    if (otherwise := _NAMED_OTHERWISE.get(_bare(name).rstrip("234"))) in ours:
        return otherwise
    named = {_bare(name)} | ({stem} if len(stem) >= _SHORTEST else set())
    return next((one for one in ours if _bare(one) in named or _SUFFIX.sub("", _bare(one)) in named), None)
