import jakarta.mail.Folder;
import jakarta.mail.Message;
import jakarta.mail.Session;
import jakarta.mail.Store;
import jakarta.mail.Transport;
import jakarta.mail.internet.MimeMessage;
import java.io.FileInputStream;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.util.Properties;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/** Jakarta Mail: `imap` and `pop3` print the first message, `smtp` sends one. */
public class Mail {
    public static void main(String[] arguments) throws Exception {
        String protocol = arguments[0];
        String security = System.getenv("MF_SECURITY");
        String login = System.getenv("MF_LOGIN");
        String password = System.getenv("MF_PASSWORD");
        int port = Integer.parseInt(System.getenv("MF_PORT"));
        String scheme = security.equals("tls") ? protocol + "s" : protocol;
        Properties properties = new Properties();
        properties.put("mail." + scheme + ".auth", "true");
        properties.put("mail." + scheme + ".starttls.enable", String.valueOf(security.equals("starttls")));
        properties.put("mail." + scheme + ".starttls.required", String.valueOf(security.equals("starttls")));
        properties.put("mail." + scheme + ".ssl.checkserveridentity", "true");
        properties.put("mail." + scheme + ".ssl.socketFactory", trust(System.getenv("MF_CA_FILE")).getSocketFactory());
        properties.put("mail.smtp.allow8bitmime", "true");
        properties.put("mail.smtps.allow8bitmime", "true");
        Session session = Session.getInstance(properties);
        if (protocol.equals("smtp")) {
            MimeMessage message = new MimeMessage(session, System.in);
            try (Transport transport = session.getTransport(scheme)) {
                transport.connect("localhost", port, login, password);
                transport.sendMessage(message, message.getAllRecipients());
            }
        } else {
            try (Store store = session.getStore(scheme)) {
                store.connect("localhost", port, login, password);
                Folder folder = store.getFolder("INBOX");
                folder.open(Folder.READ_ONLY);
                Message message = folder.getMessage(1);
                message.writeTo(System.out);
            }
        }
        System.out.flush();
    }

    private static SSLContext trust(String file) throws Exception {
        KeyStore known = KeyStore.getInstance(KeyStore.getDefaultType());
        known.load(null);
        try (FileInputStream stream = new FileInputStream(file)) {
            known.setCertificateEntry("ferry", CertificateFactory.getInstance("X.509").generateCertificate(stream));
        }
        TrustManagerFactory managers = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        managers.init(known);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, managers.getTrustManagers(), null);
        return context;
    }
}
