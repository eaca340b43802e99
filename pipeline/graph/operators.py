"""What is known of operators: which inputs are weights, and which multiply nothing that counts.

An operator that is in no table here may multiply in any way: its constants count as weights, its products as float.
"""

from __future__ import annotations

from onnx import NodeProto


def names(listed: str) -> frozenset[str]:
    """Those in a text, apart by blanks."""
    return frozenset(listed.split())


MATMULS: dict[str, tuple[int, ...]] = {
    "MatMul": (0, 1),
    "FusedMatMul": (0, 1),
    "FusedMatMulActivation": (0, 1),
    "TransposeMatMul": (0, 1),
    "Gemm": (0, 1),
    "FusedGemm": (0, 1),
    "MatMulInteger": (0, 1),
    "MatMulInteger16": (0, 1),
    "MatMulIntegerToFloat": (0, 1),
    "DynamicQuantizeMatMul": (1,),
    "QLinearMatMul": (0, 3),
    "QGemm": (0, 3),
}
CONVOLUTIONS: dict[str, tuple[int, ...]] = {
    "Conv": (1,),
    "FusedConv": (1,),
    "NhwcFusedConv": (1,),
    "ConvInteger": (1,),
    "QLinearConv": (3,),
    "DeformConv": (1,),
}
TRANSPOSED: dict[str, tuple[int, ...]] = {"ConvTranspose": (1,), "ConvTransposeWithDynamicPads": (1,)}
BLOCKS: dict[str, tuple[int, ...]] = {"MatMulNBits": (1,), "MatMulBnb4": (1,)}
"""Products with weights [N, K] that are packed in bytes."""
RECURRENT: dict[str, tuple[int, ...]] = {"LSTM": (1, 2), "DynamicQuantizeLSTM": (1, 2), "GRU": (1, 2), "RNN": (1, 2)}
GATES = {"LSTM": 4, "DynamicQuantizeLSTM": 4, "GRU": 3, "RNN": 1}
EXPERTS: dict[str, tuple[int, ...]] = {"MoE": (2, 4, 6), "QMoE": (2, 5, 8)}
ATTENTION: dict[str, tuple[int, ...]] = {
    "Attention": (1,),
    "QAttention": (1,),
    "MultiHeadAttention": (),
    "DecoderMaskedMultiHeadAttention": (),
    "GroupQueryAttention": (),
    "SparseAttention": (),
}
TABLES: dict[str, tuple[int, ...]] = {
    "Gather": (0,),
    "GatherBlockQuantized": (0,),
    "EmbedLayerNormalization": (2, 3, 4),
    "QEmbedLayerNormalization": (2, 3, 4),
}
"""Their rows are looked up and multiplied by nothing."""
WEIGHT_INPUTS: dict[str, tuple[int, ...]] = {
    **MATMULS,
    **CONVOLUTIONS,
    **TRANSPOSED,
    **BLOCKS,
    **RECURRENT,
    **EXPERTS,
    **ATTENTION,
    **TABLES,
}
"""Operator -> the inputs that can be a weight. Scales, zero points, biases and norms are at others."""

LAYERS = ("MatMul", "Gemm", "Conv", "ConvTranspose", "Gather", "LSTM", "GRU", "RNN", "Einsum")
"""ONNX's own operators that read the weights of a float graph."""

CONTROL_FLOW = frozenset({"If", "Loop", "Scan", "SequenceMap", "BeamSearch", "GreedySearch", "Sampling"})
"""Their bodies' nodes count, they themselves do not."""

MOVES = names(
    """
    ArrayFeatureExtractor Compress Concat CropAndResize DynamicSlice Expand ExpandDims Flatten GatherElements
    GatherND GatherPacked Identity Pad Reshape ReverseSequence Scatter ScatterElements ScatterND Slice Split Squeeze
    TensorScatter Tile Transpose UnfoldTensor Unsqueeze
    """
)
"""They move values about: a constant matrix that they read is stored data, as a table is."""

NO_WEIGHTS = names(
    """
    Abs Acos Acosh Add Affine AffineGrid And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization
    Bernoulli BiasGelu BifurcationDetector Binarizer BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor
    BlackmanWindow BranchwiseRMSNorm Cast CastLike CastMap CategoryMapper Ceil Celu CenterCropPad Clip Col2Im
    ConcatFromSequence Constant ConstantOfShape Cos Cosh Crop CumProd CumSum DepthToSpace DequantizeLinear Det
    DictVectorizer Div Dropout DynamicQuantizeLinear DynamicTimeWarping Elu Equal Erf Exp EyeLike FastGelu
    FeatureVectorizer Floor GatedAdd GatedRMSNorm Gelu GlobalAveragePool GlobalLpPool GlobalMaxPool Greater
    GreaterOrEqual GridSample GroupNormalization HammingWindow HannWindow HardSigmoid HardSwish Hardmax ImageDecoder
    ImageScaler Imputer InstanceNormalization Inverse IsInf IsNaN LRN LabelEncoder LayerNormalization LeakyRelu Less
    LessOrEqual LinearAttentionGate Log LogSoftmax LpNormalization LpPool MRotaryEmbedding Max MaxPool MaxRoiPool
    MaxUnpool MaxpoolWithMask Mean MeanVarianceNormalization MelWeightMatrix MemcpyFromHost MemcpyToHost Min Mish
    Mod MoEGroupRouter Mul Multinomial MurmurHash3 NGramHashMapping NGramRepeatBlock Neg NegativeLogLikelihoodLoss
    NhwcMaxPool NonMaxSuppression NonZero Normalizer Not OneHot OneHotEncoder Optional OptionalGetElement
    OptionalHasElement Or PRelu ParametricSoftplus Pow QLinearAdd QLinearAveragePool QLinearConcat
    QLinearGlobalAveragePool QLinearLeakyRelu QLinearMul QLinearReduceMean QLinearSigmoid QLinearSoftmax
    QLinearWhere QuantizeLinear QuickGelu RMSNormalization RandomNormal RandomNormalLike RandomUniform
    RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
    ReduceProd ReduceSum ReduceSumSquare RegexFullMatch Relu ReorderInput ReorderOutput Resize RoiAlign
    RotaryEmbedding Round SampleOp Scale ScaledSiLU ScaledTanh Scaler Selu SequenceAt SequenceConstruct
    SequenceEmpty SequenceErase SequenceInsert SequenceLength Shape Shrink Sigmoid Sign SimplifiedLayerNormalization
    Sin Sinh Size SkipLayerNormalization SkipSimplifiedLayerNormalization Softmax SoftmaxCrossEntropyLoss Softplus
    Softsign SpaceToDepth SplitToSequence Sqrt StringConcat StringNormalizer StringSplit Sub Sum SwiGLU Swish Tan
    Tanh TfIdfVectorizer ThresholdedRelu Tokenizer TopK Trilu Unique Upsample VarlenNGramHashMapping Where Xor
    ZipMap
    """
)
"""Operators of ONNX and ONNX Runtime that work value by value, reduce, normalize, pool, compare or make values: their
constants are biases, norms, scales and masks, and they take no products that count as multiply-accumulates."""

_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc"}


def is_standard(node: NodeProto) -> bool:
    """Whether the tables here speak of `node`: anybody may call an operator of another domain `Add`."""
    return node.domain in _DOMAINS


def multiplies_nothing(node: NodeProto) -> bool:
    """Whether `node` takes no products that count as multiply-accumulates."""
    op_type = node.op_type
    return is_standard(node) and (
        op_type in NO_WEIGHTS or op_type in MOVES or op_type in TABLES or op_type in CONTROL_FLOW
    )
