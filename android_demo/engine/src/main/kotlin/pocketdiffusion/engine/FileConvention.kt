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
            val given = inputs[told.name] ?: fail("the input ${told.name} is missing")
            val shape = given.shape
            val fits = given.dtype == told.dtype &&
                shape.size == told.shape.size &&
                told.shape.withIndex().all { (i, axis) ->
                    shape[i] == if (axis.name == null) axis.length else sizes.getOrPut(axis.name) { shape[i] }
                }
            if (!fits) fail("it takes $told, and not ${given.dtype}${shape.contentToString()}")
        }
        return sizes
    }

    /** The file's inputs by their names there. */
    fun toFile(inputs: Values, sizes: Map<String, Int>): Values =
        graph.spec.inputs.zip(graph.fileSpec.inputs).associate { (told, file) ->
            val value = fitting(told) {
                inputs.getValue(told.name).transpose(graph.transposes[told.name]).reshape(file.resolve(sizes))
            }
            file.name to value.convert(file.dtype)
        }

    /** The outputs by the names of `spec`, of the file's by their names there. */
    fun fromFile(results: Values, sizes: Map<String, Int>): Values =
        graph.spec.outputs.zip(graph.fileSpec.outputs).associate { (told, file) ->
            val order = graph.transposes[told.name] ?: told.shape.indices.toList().toIntArray()
            val value = fitting(told) {
                val shape = told.resolve(sizes)
                val permuted = IntArray(order.size) { shape[order[it]] }
                val back = IntArray(order.size) { axis -> order.indexOf(axis) }
                results.getValue(file.name).reshape(permuted).transpose(back)
            }.convert(told.dtype)
            if (!value.isFinite()) throw NotFinite(graph.name, told.name)
            told.name to value
        }

    /** What `work` makes, where the manifest's two descriptions of a tensor are of one size. */
    private fun fitting(told: TensorSpec, work: () -> Tensor): Tensor = try {
        work()
    } catch (error: RuntimeException) { // a wrong count, a wrong axis
        fail("its file has not the layout that the manifest says of $told", error)
    }

    private fun fail(why: String, cause: Throwable? = null): Nothing = throw EngineFailure(graph.name, why, cause)
}
