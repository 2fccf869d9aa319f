import java.io.InputStream;
import java.net.URI;

/** Prints what stands at a URL, if Java trusts who serves it. */
public class Trusting {
    public static void main(String[] arguments) throws Exception {
        try (InputStream in = URI.create(arguments[0]).toURL().openStream()) {
            System.out.write(in.readAllBytes());
            System.out.flush();
        }
    }
}
