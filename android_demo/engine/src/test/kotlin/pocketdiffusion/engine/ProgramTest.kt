package pocketdiffusion.engine

import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlin.test.assertTrue

/** Programs are read from JSON as the pipeline file has them; what this engine does not know is refused by name. */
class ProgramTest {
    private fun parse(json: String) = JsonNode.parse(json.toByteArray(), "test")

    private fun tensor(name: String, shape: String, dtype: String = "float32") =
        """{"name": "$name", "shape": $shape, "dtype": "$dtype"}"""

    private fun graph(name: String, inputs: List<String>, output: String): String {
        val spec = """{"inputs": $inputs, "outputs": [$output]}"""
        return """"$name": {"path": "g", "files": ["g"], "spec": $spec, "storage": "float32", "arithmetic": "float32",
            "compute_unit": "cpu"}"""
    }

    private val graphs = listOf(
        graph("text", listOf(tensor("t", "[1, 2]", "int32")), tensor("s", "[1, 2]")),
        graph("shared", listOf(tensor("x", """["b", 2]""")), tensor("y", """["b", 2]""")),
        graph(
            "unet",
            listOf(tensor("x", """["b", 2]"""), tensor("s", """["b", 4]"""), tensor("k", "[2]")),
            tensor("o", """["b", 2]"""),
        ),
    )

    private val constant = """{"constant": {"path": "k", "dtype": "float32", "shape": [2]}}"""
    private val encode = stage("encode_prompt", call("text", """{"t": "tokens/1"}""", """{"s": "states"}"""))
    private val denoise = stage(
        "denoise",
        call("shared", """{"x": "scaled_latents"}""", """{"y": "shared"}"""),
        call(
            "unet",
            """{"x": {"sum": ["latents", "shared"]}, "k": $constant,
            "s": {"concat": ["states", "states"], "axis": 1}}""",
            """{"o": "model_output"}""",
        ),
    )
    private val decode = stage("decode", call("shared", """{"x": "decoder_latents"}""", """{"y": "decoded"}"""))

    private fun call(graph: String, inputs: String, outputs: String) =
        """{"graph": "$graph", "inputs": $inputs, "outputs": $outputs}"""

    private fun stage(name: String, vararg calls: String, needs: String = "[]", required: Boolean = true) =
        """{"stage": "$name", "when": $needs, "required": $required, "calls": ${calls.toList()}}"""

    private fun pipeline(
        stages: List<String> = listOf(encode, denoise, decode),
        guidance: String = "classifier_free",
        absent: String = "zeros",
        draws: String = """["posterior", "start", "steps"]""",
        kind: String = "clip",
    ): Pipeline {
        val tokenizer = """{"kind": "$kind", "vocab": "v", "merges": "m", "characters": "c", "max_length": 2,
            "bos_id": 0, "eos_id": 1, "pad_id": 1, "unk_id": null, "added_tokens": []}"""
        return Pipeline.read(
            "onnx",
            parse(
                """{"latents": {"channels": 1, "height": 1, "width": 2, "scale": 8},
                "picture": {"width": 16, "height": 8},
                "vae": {"scaling_factor": 0.5, "shift_factor": 0}, "tokenizers": [$tokenizer],
                "program": {"guidance": "$guidance", "absent_negative": "$absent", "draws": $draws, "stages": $stages},
                "steps": {"file": "s", "most_steps": 0, "default_sampler": "x", "samplers": {}},
                "defaults": {"steps": 1, "guidance": 1, "strength": 1}, "preview": null,
                "graphs": {${graphs.joinToString()}}}""",
            ),
        )
    }

    private fun refused(what: String, make: () -> Unit) {
        val error = assertFailsWith<Refusal>(what) { make() }
        assertTrue(what in error.what, "$what, and not ${error.what}")
    }

    @Test
    fun whatIsNotKnownIsRefusedByName() {
        val other = stage("polish", required = false)
        pipeline(listOf(encode, denoise, decode, other, stage("preview", required = false)))
        refused("perp") { pipeline(guidance = "perp") }
        refused("average") { pipeline(absent = "average") }
        refused("image") { pipeline(draws = """["image"]""") }
        refused("t5") { pipeline(kind = "t5") }
        refused("polish") { pipeline(listOf(encode, denoise, decode, stage("polish"))) }
        refused("denoise") { pipeline(listOf(encode, decode)) }
        refused("decode") { pipeline(listOf(encode, denoise)) }
        refused("depth") { pipeline(listOf(encode, denoise, decode, stage("denoise", needs = """["depth"]"""))) }
        fun with(call: String) = { pipeline(listOf(encode, denoise, decode, stage("preview", call))) }
        refused("tokens/2") { with(call("text", """{"t": "tokens/2"}""", "{}"))() }
        refused("later") { with(call("shared", """{"x": "later"}""", "{}"))() }
        refused("nothing") { with(call("nothing", "{}", "{}"))() }
        refused("without its input x") { with(call("shared", "{}", "{}"))() }
        refused("input z") { with(call("shared", """{"x": "latents", "z": "latents"}""", "{}"))() }
        refused("output z") { with(call("shared", """{"x": "latents"}""", """{"z": "v"}"""))() }
        refused("int32") { with(call("shared", """{"x": "tokens/1"}""", "{}"))() }
        refused("float32") { with(call("text", """{"t": "latents"}""", "{}"))() }
        refused("float32") { with(call("text", """{"t": {"sum": ["tokens/1"]}}""", "{}"))() }
        refused("axis 0") { with(call("shared", """{"x": {"concat": ["latents", "latents"], "axis": 0}}""", "{}"))() }
        refused("kind of its own") { with(call("shared", """{"x": {"product": ["latents"]}}""", "{}"))() }
        refused("bfloat16") { with(call("shared", """{"x": ${constant.replace("float32", "bfloat16")}}""", "{}"))() }
    }

    @Test
    fun variantsAreTakenInTheirOrder() {
        val simple = call("shared", """{"x": "latents"}""", """{"y": "model_output"}""")
        val control = stage("denoise", simple, needs = """["control_picture"]""")
        val program = pipeline(listOf(encode, control, denoise, decode)).program
        val hosts = program.hosts(1, hasPicture = false)
        assertEquals(2, program.variant(Program.DENOISE, hosts)!!.calls.size)
        assertEquals(1, program.variant(Program.DENOISE, hosts + "control_picture")!!.calls.size)
        assertEquals(null, program.variant(Program.ENCODE_IMAGE, hosts))
        refused("control_picture") { pipeline(listOf(encode, control, decode)).program.variant(Program.DENOISE, hosts) }
        val taking = stage("decode", call("shared", """{"x": "control_picture"}""", """{"y": "decoded"}"""))
        val stages = listOf(pipeline(listOf(encode, denoise, taking)).program.variant(Program.DECODE, hosts)!!)
        refused("control_picture") { program.checkGiven(stages, hosts) }
        program.checkGiven(stages, hosts + "control_picture")
    }

    @Test
    fun hostsDependOnTheKindOfGuidance() {
        assertFalse("guidance" in pipeline().program.hosts(1, false))
        assertTrue("guidance" in pipeline(guidance = "embedded").program.hosts(1, false))
        assertEquals(setOf("picture"), pipeline().program.run { hosts(1, true) - hosts(1, false) })
    }

    private class Made(val name: String, val calls: MutableList<String>, val make: (Values) -> Values) : GraphRunner {
        override fun run(inputs: Values, cancellation: Cancellation): Values {
            calls += "$name ${inputs.getValue("x").shape[0]}"
            return make(inputs)
        }

        override fun close() = Unit
    }

    private fun row(vararg values: Float) = Tensor.of(intArrayOf(1, values.size), values)

    @Test
    fun bothHalvesInOneCallGiveWhatTwoCallsGive() {
        val pipeline = pipeline()
        val calls = ArrayList<String>()
        val shared = Made("shared", calls) { inputs ->
            val x = inputs.getValue("x")
            mapOf("y" to Tensor.of(x.shape, x.floats().map { 2 * it }.toFloatArray()))
        }
        val unet = Made("unet", calls) { inputs ->
            val (x, s, k) = listOf("x", "s", "k").map { inputs.getValue(it).floats() }
            val sums = FloatArray(x.size) { i -> x[i] + s[i / 2 * 4 + i % 2] + s[i / 2 * 4 + 2] + k[i % 2] }
            mapOf("o" to Tensor.of(inputs.getValue("x").shape, sums))
        }
        val run = ProgramRun(
            pipeline,
            mapOf("k" to Tensor.of(intArrayOf(2), floatArrayOf(10f, 20f))),
            { if (it.name == "unet") unet else shared },
            Cancellation(),
        )
        val stage = pipeline.program.variant(Program.DENOISE, emptySet())!!
        val halves = listOf(row(100f, 200f), row(1000f, 2000f)).map { states ->
            mapOf("latents" to row(1f, 2f), "scaled_latents" to row(3f, 4f), "states" to states)
        }
        assertTrue(pipeline.program.canStack(stage))
        for (stacked in listOf(false, true)) {
            val made = run.run(stage, halves, stacked).map { it.getValue("model_output").floats() }
            assertContentEquals(floatArrayOf(217f, 330f), made[0])
            assertContentEquals(floatArrayOf(2017f, 3030f), made[1])
        }
        assertEquals(listOf("shared 1", "unet 1", "unet 1", "shared 1", "unet 2"), calls)
        val zeros = run.zeros(pipeline.program.variant(Program.ENCODE_PROMPT, emptySet())!!)
        assertContentEquals(floatArrayOf(0f, 0f), zeros.getValue("states").floats())
        assertEquals(setOf("states"), zeros.keys)
    }
}
