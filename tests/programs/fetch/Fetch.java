import java.io.InputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;

/** By both clients that Java has. */
public class Fetch {
    public static void main(String[] words) throws Exception {
        URI uri = URI.create(words[0]);
        try (InputStream body = uri.toURL().openStream()) {
            body.transferTo(System.out);
        }
        var request = HttpRequest.newBuilder(uri).build();
        System.out.print(HttpClient.newHttpClient().send(request, BodyHandlers.ofString()).body());
        System.out.flush();
    }
}
