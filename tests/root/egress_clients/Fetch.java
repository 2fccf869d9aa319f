// Fetches args[0] by both of Java's HTTP clients, with whatever proxy Java has been told of. Prints what came.

import java.io.InputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.net.ProxySelector;

public class Fetch {
    public static void main(String[] args) throws Exception {
        try (InputStream answer = URI.create(args[0]).toURL().openStream()) {
            System.out.print("url: " + new String(answer.readAllBytes()));
        }
        HttpClient client = HttpClient.newBuilder().proxy(ProxySelector.getDefault()).build();
        HttpRequest request = HttpRequest.newBuilder(URI.create(args[0])).build();
        System.out.print("client: " + client.send(request, HttpResponse.BodyHandlers.ofString()).body());
    }
}
