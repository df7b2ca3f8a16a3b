import java.io.FileInputStream;
import java.io.InputStream;
import java.security.cert.CertPath;
import java.security.cert.CertPathValidator;
import java.security.cert.CertPathValidatorException;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.cert.CertificateRevokedException;
import java.security.cert.PKIXParameters;
import java.security.cert.PKIXRevocationChecker;
import java.security.cert.TrustAnchor;
import java.security.cert.X509Certificate;
import java.util.ArrayList;
import java.util.EnumSet;
import java.util.HashSet;
import java.util.List;
import java.util.Set;

/**
 * Validates chains as Java's PKIX does, with revocation checking that fails hard.
 *
 * Arguments: the roots (PEM, one or more), then pairs of a mode and a chain (PEM, leaf first, without the root). One line of output for
 * each pair: the mode, and "valid", "revoked REASON" or "refused WHY".
 *
 * Modes: "ocsp" asks by OCSP about the leaf and by nothing else; "crl" reads the CRLs of the whole chain and nothing else;
 * "both" is Java's own way: OCSP where there is a responder, CRLs else; "chain" asks nobody.
 */
public class Check {
    public static void main(String[] args) throws Exception {
        Set<TrustAnchor> roots = new HashSet<>();
        for (Certificate root : read(args[0])) {
            roots.add(new TrustAnchor((X509Certificate) root, null));
        }
        for (int at = 1; at < args.length; at += 2) {
            System.out.println(args[at] + " " + validate(roots, read(args[at + 1]), args[at]));
        }
    }

    private static String validate(Set<TrustAnchor> roots, List<Certificate> chain, String mode) throws Exception {
        CertPath path = CertificateFactory.getInstance("X.509").generateCertPath(chain);
        CertPathValidator validator = CertPathValidator.getInstance("PKIX");
        PKIXParameters parameters = new PKIXParameters(roots);
        parameters.setRevocationEnabled(!mode.equals("chain"));
        PKIXRevocationChecker checker = (PKIXRevocationChecker) validator.getRevocationChecker();
        if (mode.equals("ocsp")) {
            checker.setOptions(EnumSet.of(
                PKIXRevocationChecker.Option.ONLY_END_ENTITY, PKIXRevocationChecker.Option.NO_FALLBACK));
        } else if (mode.equals("crl")) {
            checker.setOptions(EnumSet.of(
                PKIXRevocationChecker.Option.PREFER_CRLS, PKIXRevocationChecker.Option.NO_FALLBACK));
        }
        if (!mode.equals("chain")) {
            parameters.addCertPathChecker(checker);
        }
        try {
            validator.validate(path, parameters);
            return "valid";
        } catch (CertPathValidatorException refused) {
            if (refused.getCause() instanceof CertificateRevokedException) {
                return "revoked " + ((CertificateRevokedException) refused.getCause()).getRevocationReason();
            }
            return "refused " + refused.getReason() + " " + refused.getMessage();
        }
    }

    private static List<Certificate> read(String file) throws Exception {
        try (InputStream in = new FileInputStream(file)) {
            return new ArrayList<>(CertificateFactory.getInstance("X.509").generateCertificates(in));
        }
    }
}
