package pocketdiffusion.app

/** Marks what is called on Android of API `level` or newer alone; animal-sniffer passes over it. */
@Retention(AnnotationRetention.BINARY)
@Target(AnnotationTarget.CLASS, AnnotationTarget.FUNCTION)
annotation class SinceApi(val level: Int)
