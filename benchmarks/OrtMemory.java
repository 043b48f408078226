import ai.onnxruntime.NodeInfo;
import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtSession;
import ai.onnxruntime.TensorInfo;
import java.nio.FloatBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import java.util.Random;

/**
 * Prints the anonymous memory (KB, beyond that before the file was opened) of one ONNX graph in onnxruntime's Java API:
 * its peak while the file is opened, what it holds then, and for three calls the peak, what stays, and seconds.
 *
 * <p>java -cp onnxruntime.jar OrtMemory.java FILE defaults|app
 */
public class OrtMemory {
  private static volatile long peak;

  private static long anonymous() throws java.io.IOException {
    for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
      if (line.startsWith("RssAnon:")) return Long.parseLong(line.replaceAll("\\D", ""));
    }
    throw new IllegalStateException("/proc/self/status has no RssAnon");
  }

  private static void watch() {
    try {
      while (true) {
        peak = Math.max(peak, anonymous());
        Thread.sleep(2);
      }
    } catch (Exception error) {
      throw new IllegalStateException(error);
    }
  }

  public static void main(String[] arguments) throws Exception {
    OrtEnvironment environment = OrtEnvironment.getEnvironment();
    OrtSession.SessionOptions options = new OrtSession.SessionOptions();
    options.setDeterministicCompute(true);
    options.addConfigEntry("session.intra_op.allow_spinning", "0");
    if (arguments[1].equals("app")) { // as OrtEngine.kt sets them
      options.setCPUArenaAllocator(false);
      options.setMemoryPatternOptimization(false);
    }
    Thread watcher = new Thread(OrtMemory::watch);
    watcher.setDaemon(true);
    long before = anonymous();
    peak = before;
    watcher.start();
    OrtSession session = environment.createSession(arguments[0], options);
    System.out.println((peak - before) + " " + (anonymous() - before));
    Map<String, OnnxTensor> inputs = new HashMap<>();
    for (Map.Entry<String, NodeInfo> input : session.getInputInfo().entrySet()) {
      long[] shape = ((TensorInfo) input.getValue().getInfo()).getShape();
      int count = 1;
      for (long size : shape) count *= (int) size;
      float[] values = new float[count];
      Random random = new Random(0);
      for (int i = 0; i < count; i++) values[i] = (float) random.nextGaussian();
      inputs.put(input.getKey(), OnnxTensor.createTensor(environment, FloatBuffer.wrap(values), shape));
    }
    for (int call = 0; call < 3; call++) {
      peak = anonymous();
      long began = System.nanoTime();
      session.run(inputs).close();
      double seconds = (System.nanoTime() - began) / 1e9;
      System.out.println((peak - before) + " " + (anonymous() - before) + " " + seconds);
    }
  }
}
