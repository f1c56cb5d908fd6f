// Numbers of MLP neurons by layer, and a list of the strongest.
import { gridView } from "../core/grid";

export default gridView("neurons");
