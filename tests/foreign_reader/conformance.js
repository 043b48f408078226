export async function check(){return [{name:'nothing',ok:true,detail:''}]}
