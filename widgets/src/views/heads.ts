// Numbers of attention heads by layer, and a list of the strongest.
import { gridView } from "../core/grid";

export default gridView("heads");
