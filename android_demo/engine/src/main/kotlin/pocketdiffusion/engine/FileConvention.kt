package pocketdiffusion.engine

/**
 * Between the pipeline's own convention (`spec`) and that of a graph's file (`file_spec`, `transposes`; docs/BUNDLE.md,
 * section 5). Every engine gives and takes the file's tensors; this is the rest.
 */
class FileConvention(private val graph: PipelineGraph) {
    /** The lengths of the free axes, which the inputs choose. Throws EngineFailure for inputs that do not fit. */
    fun sizesOf(inputs: Values): Map<String, Int> {
        val sizes = HashMap<String, Int>()
        for (told in graph.spec.inputs) {
            val given = inputs[told.name] ?: throw EngineFailure(graph.name, "the input ${told.name} is missing")
            val fits = given.shape.size == told.shape.size &&
                told.shape.withIndex().all { (i, axis) ->
                    given.shape[i] ==
                        if (axis.name == null) axis.length else sizes.getOrPut(axis.name) { given.shape[i] }
                }
            if (!fits || given.dtype != told.dtype) {
                throw EngineFailure(
                    graph.name,
                    "it takes $told, and not ${given.dtype}${given.shape.contentToString()}",
                )
            }
        }
        return sizes
    }

    /** The file's inputs by their names there. */
    fun toFile(inputs: Values, sizes: Map<String, Int>): Values =
        graph.spec.inputs.zip(graph.fileSpec.inputs).associate { (told, file) ->
            val transposed = inputs.getValue(told.name).transpose(graph.transposes[told.name])
            file.name to transposed.reshape(file.resolve(sizes)).convert(file.dtype)
        }

    /** The outputs by the names of `spec`, of the file's by their names there. */
    fun fromFile(results: Values, sizes: Map<String, Int>): Values =
        graph.spec.outputs.zip(graph.fileSpec.outputs).associate { (told, file) ->
            val order = graph.transposes[told.name]
            val shape = told.resolve(sizes)
            val permuted = if (order == null) shape else IntArray(order.size) { shape[order[it]] }
            val back = order?.let { IntArray(it.size) { axis -> it.indexOf(axis) } }
            val value = results.getValue(file.name).reshape(permuted).transpose(back).convert(told.dtype)
            if (!value.isFinite()) throw NotFinite(graph.name, told.name)
            told.name to value
        }
}
